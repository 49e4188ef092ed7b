"""`preceptor eval`: held-out windows are read, continued by one or two models, and put to the judge service.

In: an `EvalPlan`. Out: an `Outcome`. Everything that is needed (models, windows, a judge that is ready) is looked for
before the first sample is drawn. Raises `TrainError`, whose text says what to change. Waits for the models, which may
take minutes, and then for the judge, with a bounded number of cohorts in flight.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from rich.progress import Progress
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from preceptor_client import AsyncPreceptorClient
from preceptor_client.config import describe
from preceptor_client.contract import JudgeRequest, JudgeResponse, Origin, Status
from preceptor_client.errors import AuthenticationError, PreceptorError
from preceptor_client.settings import ClientSettings
from preceptor_trainer.codec import Codec
from preceptor_trainer.data.documents import DocumentError
from preceptor_trainer.data.stream import held_out
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.evaluation.generation import Generation, generate
from preceptor_trainer.evaluation.judged import Outcome, pairs, request
from preceptor_trainer.evaluation.plan import EvalPlan

_OPTIONS = re.compile(r"\bdata\.(path|source|text_field|bad_documents|suffix_tokens|min_prefix_tokens)\b")
"""Keys of a training configuration that this command has as options."""


def evaluate(plan: EvalPlan, progress: Progress) -> Outcome:
    """The whole evaluation."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    model, codec = load(plan.model)
    rival = load(plan.rival) if plan.rival else None
    try:
        say = partial(progress.console.print, markup=False)
        windows = held_out(plan.data, codec.encode, plan.windows, say)
    except DocumentError as error:
        raise DocumentError(_OPTIONS.sub(_option, str(error))) from None
    _check_positions(plan.model, model, windows)
    theirs = recut(windows, codec, rival[1]) if rival else []
    if rival and plan.rival:
        _check_positions(plan.rival, rival[0], theirs)
    asyncio.run(_check_judge(plan.client))

    ours = _sample(plan.model, model, codec, windows, plan.seed, progress)
    rivals = _sample(plan.rival or "", *rival, theirs, plan.seed, progress) if rival else None
    origin = Origin.ROLLOUT if rival else Origin.ORIGINAL
    try:
        requests = [request(n, pair, plan.axes, rival_origin=origin) for n, pair in enumerate(pairs(ours, rivals))]
    except ValidationError as error:
        raise TrainError(
            f"the judge cannot be asked that: {one_line(describe(error))}; lower --prefix-tokens"
        ) from None
    task = progress.add_task("judging", total=len(requests))
    try:
        responses = asyncio.run(ask(plan.client, requests, plan.concurrency, answered=lambda: progress.advance(task)))
    except AuthenticationError as error:
        raise TrainError(f"the judge: {one_line(str(error))}; set PRECEPTOR_API_KEY") from None
    except PreceptorError as error:
        raise TrainError(f"the judge: {one_line(str(error))}") from None
    outcome = Outcome(responses, plan.axes)
    if not outcome.statuses[Status.OK]:
        reason = outcome.reasons.most_common(1)[0][0]
        raise TrainError(f"none of the {outcome.statuses.total()} verdicts has a score; most often: {reason}")
    return outcome


def load(path: str) -> tuple[Any, Codec]:
    """A Hugging Face directory or name, on the GPU if there is one. Raises `TrainError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path)
    except Exception as error:  # what a damaged folder makes transformers raise is not said anywhere
        raise TrainError(f"cannot load the model {path}: {type(error).__name__}: {one_line(str(error))}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), Codec(tokenizer)


def recut(windows: Sequence[Window], codec: Codec, other: Codec) -> list[Window]:
    """The same texts in another tokenizer's tokens; what is not another one leaves the windows as they are."""
    if codec.tokenizer.get_vocab() == other.tokenizer.get_vocab():
        return list(windows)  # a text cut anywhere may have more tokens when it is encoded anew

    def encoded(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(other.encode(codec.decode(ids)))

    return [Window(w.epoch, w.document, encoded(w.prefix), encoded(w.suffix)) for w in windows]


def _check_positions(path: str, model: Any, windows: Sequence[Window]) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(window.prefix) + len(window.suffix) for window in windows)
    if positions is not None and longest > positions:
        raise TrainError(
            f"windows have up to {longest} tokens, {path} takes {positions}: lower --prefix-tokens or --suffix-tokens"
        )


def _sample(
    path: str, model: Any, codec: Codec, windows: Sequence[Window], seed: int, progress: Progress
) -> list[Generation]:
    task = progress.add_task(f"sampling {path}", total=len(windows))
    return generate(model, codec, windows, seed=seed, progress=lambda done: progress.advance(task, done))


async def _check_judge(settings: ClientSettings) -> None:
    async with AsyncPreceptorClient(settings=settings) as client:
        health = await client.health("judge")
    if health.status != "ok":
        raise TrainError(
            f"the judge at {settings.judge_url} is {health.status} ({health.detail}): start it, or set --judge-url"
        )


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


def _option(key: re.Match[str]) -> str:
    return "--data" if key[1] == "path" else "--" + key[1].replace("_", "-")
