"""Calls from outside, through the SDK: one cohort, a batch that lives through everything, calls while the judge dies.

In: where the judge is published, a key, and texts of the nano world. Out: scores, and an account of the batch for the
audit. Raises `SystemExit` if something is answered that should not be.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chaos_parts.audit import BatchAccount
from preceptor_client import PreceptorClient
from preceptor_client.calls import judge_texts_request
from preceptor_client.contract import JudgeRequest, JudgeResponse, Status
from preceptor_client.errors import AuthenticationError
from preceptor_client.settings import ClientSettings

BATCH_ITEMS = 200
_CALLS = 24
_PREFIX_WORDS, _TEXT_WORDS = 8, 12


class Traffic:
    """What somebody on the same machine asks of the judge. `corpus` is read once."""

    def __init__(self, env: Mapping[str, str], corpus: Path) -> None:
        self._settings = ClientSettings(
            judge_url=f"http://127.0.0.1:{env['PRECEPTOR_JUDGE_PORT']}",
            api_key=env["PRECEPTOR_API_KEY"],
            retries=12,
        )
        documents = [json.loads(line)["text"].split() for line in corpus.read_text().splitlines()]
        self._requests = [_request(*pair) for pair in itertools.pairwise(documents)]
        self._batch = BatchAccount("", BATCH_ITEMS)

    def judge_one(self) -> dict[str, float | None]:
        """The scores of a cohort, by candidate and axis."""
        with PreceptorClient(settings=self._settings) as client:
            response = _answered(client.judge(self._requests[0]))
        return {f"{verdict.candidate_id} {verdict.axis}": verdict.score for verdict in response.verdicts}

    def is_refused_without_a_key(self) -> None:
        """Nobody gets verdicts without a key."""
        with PreceptorClient(settings=self._settings.model_copy(update={"api_key": None})) as client:
            try:
                client.judge(self._requests[0])
            except AuthenticationError:
                return
        raise SystemExit("test-compose: the judge answered a caller without a key")

    def submit_batch(self) -> None:
        """Hand over a batch, to be judged while things die."""
        with PreceptorClient(settings=self._settings) as client:
            self._batch.id = client.submit_batch(self._requests[:BATCH_ITEMS]).id

    @contextmanager
    def flowing(self, *, when: bool) -> Iterator[None]:
        """Calls all the while, if so wanted: every one of them gets its verdicts, whatever happens to the judge."""
        if not when:
            yield
            return
        with PreceptorClient(settings=self._settings) as client, ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(client.judge, each) for each in self._requests[-_CALLS:]]
            yield
            for call in calls:
                _answered(call.result())

    def account(self) -> BatchAccount:
        """The batch's results, as they come and as they are kept. Waits until it is done."""
        with PreceptorClient(settings=self._settings) as client:
            self._batch.received = list(client.batch_results(self._batch.id))
            self._batch.stored = list(client.batch_results(self._batch.id))
        return self._batch


def _request(document: list[str], other: list[str]) -> JudgeRequest:
    """How a document goes on, against how another one does."""
    texts = [" ".join(words[_PREFIX_WORDS : _PREFIX_WORDS + _TEXT_WORDS]) for words in (document, other)]
    return judge_texts_request(" ".join(document[:_PREFIX_WORDS]), texts)


def _answered(response: JudgeResponse) -> JudgeResponse:
    if failed := [verdict for verdict in response.verdicts if verdict.status is Status.FAILED]:
        raise SystemExit(f"test-compose: verdicts failed: {failed}")
    return response
