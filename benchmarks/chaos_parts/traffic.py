"""Batches through the judge service, one after the other for as long as a run lasts, as a patient caller sends them.

In: the judge's address, texts. Out: a `BatchAccount` of every batch. Works in a thread of its own; every refusal and
lost connection is met by asking again, with the id that makes it harmless.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.chaos_parts.audit import BatchAccount
from preceptor_client import Candidate, ClientSettings, Cohort, JudgeRequest, PreceptorClient
from preceptor_client.contract import Composition
from preceptor_client.errors import PreceptorError

_ITEMS, _CANDIDATES, _PREFIX_WORDS, _SUFFIX_WORDS = 24, 2, 16, 16
_BETWEEN_BATCHES_S = 2.0
"""Batches without a pause would leave a small machine no time to start what was killed."""
_BEFORE_ASKING_AGAIN_S = 0.3
_AXES = {"quality": 1.0, "safety": 1.0}

AnswerT = TypeVar("AnswerT")


class Traffic:
    """`texts` are documents to cut cohorts from; none is used up."""

    def __init__(self, judge_url: str, texts: Sequence[str], *, seed: int) -> None:
        self._settings = ClientSettings(judge_url=judge_url, read_timeout_s=20, retries=1)
        self._texts = texts
        self._dice = random.Random(f"traffic/{seed}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_batches, name="traffic", daemon=True)
        self.batches: list[BatchAccount] = []
        self.results = 0
        """Received so far, over all batches."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, timeout_s: float) -> bool:
        """Send no further batch; wait until the last is done and all are read once more. False if it takes longer."""
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _send_batches(self) -> None:
        with PreceptorClient(settings=self._settings) as client:
            while not self._stop.is_set():
                self._send(client)
                self._stop.wait(_BETWEEN_BATCHES_S)
            for batch in self.batches:
                batch.stored = _insist(lambda: [*client.batch_results(batch.id)])  # noqa: B023 (called at once)

    def _send(self, client: PreceptorClient) -> None:
        items = [self._request(f"{len(self.batches)}-{number}") for number in range(_ITEMS)]
        account = BatchAccount(f"chaos-{len(self.batches)}", len(items))
        self.batches.append(account)
        _insist(lambda: client.submit_batch(items, batch_id=account.id))

        def read() -> None:
            for result in client.batch_results(account.id, after=len(account.received)):
                account.received.append(result)
                self.results += 1

        _insist(read)

    def _request(self, id: str) -> JudgeRequest:
        words = self._dice.choice(self._texts).split()
        others = [self._dice.choice(self._texts).split() for _ in range(_CANDIDATES - 1)]
        suffixes = [text[_PREFIX_WORDS : _PREFIX_WORDS + _SUFFIX_WORDS] for text in (words, *others)]
        candidates = tuple(Candidate(id=f"c{n}", text=" ".join(suffix)) for n, suffix in enumerate(suffixes))
        cohort = Cohort(id=id, prefix=" ".join(words[:_PREFIX_WORDS]), candidates=candidates)
        return JudgeRequest(cohort=cohort, axes=tuple(_AXES), composition=Composition(weights=_AXES), cache="bypass")


def _insist(call: Callable[[], AnswerT]) -> AnswerT:
    while True:
        try:
            return call()
        except PreceptorError:
            threading.Event().wait(_BEFORE_ASKING_AGAIN_S)
