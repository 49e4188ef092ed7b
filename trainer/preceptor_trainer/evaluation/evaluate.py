"""`preceptor eval`: held-out windows or prompts are read, continued by one or two models, and put to the judge service.

In: an `EvalPlan`. Out: an `Outcome`. Everything that is needed (models, windows, a judge that is ready) is looked for
before the first sample is drawn. Raises `TrainError`, whose text says what to change. Waits for the models, which may
take minutes, and then for the judge, with a bounded number of cohorts in flight.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.progress import Progress
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from preceptor_client import AsyncPreceptorClient, PreceptorClient
from preceptor_client.config import describe
from preceptor_client.contract import JudgeRequest, JudgeResponse, Origin, RubricInfo, Status
from preceptor_client.errors import AuthenticationError, PreceptorError
from preceptor_client.settings import ClientSettings
from preceptor_trainer.codec import Codec
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import PassedOver, stream_documents
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.data.stream import held_out
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.evaluation.generation import Generation, generate
from preceptor_trainer.evaluation.judged import SIDES, Outcome, Pair, Side, pairs, request
from preceptor_trainer.evaluation.plan import EvalPlan
from preceptor_trainer.evaluation.rubrics import choose

_OPTIONS = re.compile(r"\bdata\.(path|source|text_field|bad_documents|suffix_tokens|min_prefix_tokens)\b")
"""Keys of a training configuration that this command has as options."""


def evaluate(plan: EvalPlan, progress: Progress) -> Outcome:
    """The whole evaluation."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if plan.samples:
        _keep(plan.samples, [])  # told now, and not when models have written for minutes
    model, codec = load(plan.model)
    if plan.control is not None:
        codec.control(plan.control)
    rival = load(plan.rival) if plan.rival else None
    read, n_tokens = (read_prompts, plan.data.suffix_tokens) if plan.prompts else (held_out, None)
    say = partial(progress.console.print, soft_wrap=True, markup=False, highlight=False)
    try:
        windows = read(plan.data, codec.encode, plan.windows, say)
    except DocumentError as error:
        options = {"path": "prompts" if plan.prompts else "data"}
        message = _OPTIONS.sub(lambda key: "--" + options.get(key[1], key[1]).replace("_", "-"), str(error))
        raise DocumentError(message) from None
    _check_positions(plan.model, model, windows, n_tokens, plan.control)
    theirs = recut(windows, codec, rival[1]) if rival else []
    if rival and plan.rival:
        _check_positions(plan.rival, rival[0], theirs, n_tokens)
    sides: Sequence[Side] = SIDES if rival or not plan.prompts else SIDES[:1]
    asked = choose(
        plan.axes, plan.rubrics, _offered(plan.client), compared=len(sides) == 2, referenced=not plan.prompts
    )

    ours = _sample(plan.model, model, codec, windows, n_tokens, plan.seed, progress, plan.control)
    rivals = _sample(plan.rival or "", *rival, theirs, n_tokens, plan.seed, progress) if rival else None
    origin = Origin.ROLLOUT if rival else Origin.ORIGINAL
    written = pairs(ours, rivals, prompts=plan.prompts)
    if plan.samples:
        _keep(plan.samples, written)
    try:
        requests = [request(n, pair, asked, rival_origin=origin) for n, pair in enumerate(written)]
    except ValidationError as error:
        raise TrainError(
            f"the judge cannot be asked that: {one_line(describe(error))}; lower --prefix-tokens"
        ) from None
    task = progress.add_task("judging", total=len(requests))
    with _told():
        responses = asyncio.run(ask(plan.client, requests, plan.concurrency, answered=lambda: progress.advance(task)))
    outcome = Outcome(responses, asked.axes, sides, asked.left_out)
    if not outcome.statuses[Status.OK]:
        reason = outcome.reasons.most_common(1)[0][0]
        raise TrainError(f"none of the {outcome.statuses.total()} verdicts has a score; most often: {reason}")
    return outcome


def _keep(file: Path, written: Sequence[Pair]) -> None:
    """Write what the sides wrote to `file`. Raises `TrainError`."""
    lines = [{name: text for name, text in asdict(pair).items() if text is not None} for pair in written]
    try:
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise TrainError(f"cannot write to {file}: {error.strerror or error}; set --samples") from error


def load(path: str) -> tuple[Any, Codec]:
    """A Hugging Face directory or name, on the GPU if there is one. Raises `TrainError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path)
    except Exception as error:  # what a damaged folder makes transformers raise is not said anywhere
        raise TrainError(f"cannot load the model {path}: {type(error).__name__}: {one_line(str(error))}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), Codec(tokenizer)


def recut(windows: Sequence[Window], codec: Codec, other: Codec) -> list[Window]:
    """The same texts in another tokenizer's tokens; one that is the same, but for control tokens that either has and
    no window holds, leaves the windows as they are.
    """
    ours, theirs = codec.tokenizer.get_vocab().items(), other.tokenizer.get_vocab().items()
    added = {id for _, id in ours - theirs}
    if (ours <= theirs or theirs <= ours) and not any(added.intersection(w.prefix + w.suffix) for w in windows):
        return list(windows)  # a text cut anywhere may have more tokens when it is encoded anew

    def encoded(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(other.encode(codec.decode(ids)))

    return [Window(w.epoch, w.document, encoded(w.prefix), encoded(w.suffix)) for w in windows]


def read_prompts(
    data: DataConfig, encode: Callable[[str], Sequence[int]], count: int, say: Callable[[str], None]
) -> list[Window]:
    """The last tokens of the first `count` documents, without suffixes. Raises `DocumentError` for one without any."""
    prompts = []
    for document in islice(stream_documents(data, passed_over=PassedOver(say)), count):
        if not (ids := encode(document.text)):
            raise DocumentError(f"{data.path}: prompt {document.index + 1} is empty: take it out")
        prompts.append(Window(0, document.index, tuple(ids[-data.prefix_tokens :]), ()))
    return prompts


def _check_positions(
    path: str, model: Any, windows: Sequence[Window], n_tokens: int | None, control: str | None = None
) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(window.prefix) + (n_tokens or len(window.suffix)) for window in windows) + (control is not None)
    if positions is not None and longest > positions:
        raise TrainError(
            f"windows have up to {longest} tokens, {path} takes {positions}: lower --prefix-tokens or --suffix-tokens"
        )


def _sample(
    path: str,
    model: Any,
    codec: Codec,
    windows: Sequence[Window],
    n_tokens: int | None,
    seed: int,
    progress: Progress,
    control: str | None = None,
) -> list[Generation]:
    task = progress.add_task(f"sampling {path}", total=len(windows))
    return generate(
        model,
        codec,
        windows,
        control=control,
        n_tokens=n_tokens,
        seed=seed,
        progress=lambda done: progress.advance(task, done),
    )


def _offered(settings: ClientSettings) -> Sequence[RubricInfo]:
    """The rubrics of the judge, which must be ready."""
    with PreceptorClient(settings=settings) as client:
        health = client.health("judge")
        if health.status != "ok":
            raise TrainError(
                f"the judge at {settings.judge_url} is {health.status} ({health.detail}): start it, or set --judge-url"
            )
        with _told():
            return client.rubrics().rubrics


@contextmanager
def _told() -> Iterator[None]:
    """What the judge refuses is a `TrainError`."""
    try:
        yield
    except AuthenticationError as error:
        raise TrainError(f"the judge: {one_line(str(error))}; set PRECEPTOR_API_KEY") from None
    except PreceptorError as error:
        raise TrainError(f"the judge: {one_line(str(error))}") from None


async def ask(
    settings: ClientSettings, requests: Sequence[JudgeRequest], concurrency: int, answered: Callable[[], None]
) -> list[JudgeResponse]:
    """The responses, in the order of the requests. Raises the first `PreceptorError`."""
    responses: dict[int, JudgeResponse] = {}
    open_requests = iter(enumerate(requests))

    async def work(client: AsyncPreceptorClient) -> None:
        for number, asked in open_requests:
            responses[number] = await client.judge(asked)
            answered()

    async with AsyncPreceptorClient(settings=settings) as client:
        workers = [asyncio.create_task(work(client)) for _ in range(min(concurrency, len(requests)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return [responses[number] for number in range(len(requests))]
