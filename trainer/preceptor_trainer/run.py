"""One training run, from its configuration to its last checkpoint.

In: a `TrainConfig`; a policy with its tokenizer, documents and, as far as the configuration asks for them, Redis, a
rewrite service and a vLLM server. Out: in `<out>`: `config.yaml`, `run.json`, `metrics.jsonl`, `cohorts.jsonl`,
`summary.json`, `checkpoints/`, `final/`; `/metrics` at `metrics.port`. Everything that is needed is looked for before
the first document is read.
SIGINT or SIGTERM end it after the update it is at, with a checkpoint to resume from; a second one at once. A pause, for
which a drift guard may ask, is such an end as well; what follows it is what `--resume` would do. Raises `TrainError`,
whose text says what to change.

Under torchrun rank 0 does all of this, and the others (`follow`) take part in its updates alone.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import torch
from redis.exceptions import RedisError
from transformers.utils import logging as transformers_logging

from preceptor_client import AsyncPreceptorClient, tracing
from preceptor_client.config import dump_config
from preceptor_client.masking import REVEALED, shown
from preceptor_client.queue import (
    CohortQueue,
    QueueMisfit,
    QueueOperations,
    QueueStatus,
    QueueUnavailable,
    Trouble,
    check_redis,
    connect,
)
from preceptor_client.stack import FolderInUse, sole_use
from preceptor_trainer.board import Board, open_board
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.documents import PassedOver, stream_documents
from preceptor_trainer.data.stream import Position, WindowStream
from preceptor_trainer.errors import TrainError
from preceptor_trainer.guards.held_out import held_out_windows
from preceptor_trainer.guards.pause import PAUSED_FILE, pause
from preceptor_trainer.guards.watch import Drifted, Watch
from preceptor_trainer.judges import Judges
from preceptor_trainer.learner import Learner
from preceptor_trainer.ledger import LEDGER_FILE, CohortLedger
from preceptor_trainer.loop import Parts, TrainLoop
from preceptor_trainer.metrics import Metrics, served
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.pretrained import check_context, device_named, load_pretrained
from preceptor_trainer.ranks import ALONE, Ranks
from preceptor_trainer.resume import Start, find_start, name_in_redis, restore
from preceptor_trainer.rewrite_ahead import RewriteAhead
from preceptor_trainer.rollouts.engine import PolicyEngine
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.rollouts.vllm_engine import VllmEngine
from preceptor_trainer.signals import until_signalled
from preceptor_trainer.telemetry import Telemetry
from preceptor_trainer.thoughts import thought_format
from preceptor_trainer.traces import CohortTraces
from preceptor_trainer.trackers.trackers import Trackers, check_installed
from preceptor_trainer.vocabulary import add_tokens

_STATUS_PATIENCE_S = 2.0


def train(config: TrainConfig, start: Start = "fresh") -> signal.Signals | None:
    """Run `config` to its end, or to a signal, which is returned."""
    ranks = Ranks.join()
    try:
        return asyncio.run(until_signalled(lambda stop: run(config, start, stop, ranks)))
    finally:
        ranks.leave()


def follow() -> None:
    """Take part in the run of rank 0, with its configuration, until it ends. Raises `RankLost` if it is gone."""
    ranks = Ranks.join()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # rank 0 is told as well, and needs the others for its last checkpoint
    word, body = ranks.hear()
    while word == "begin":  # again after a pause
        config = TrainConfig.model_validate_json(body)
        _prepare_torch(config)
        word, body = _learner(config, load_policy(config, ranks)[0], ranks).follow()
    ranks.leave()


async def run(
    config: TrainConfig, start: Start = "fresh", stop: asyncio.Event | None = None, ranks: Ranks = ALONE
) -> bool:
    """`train` for those who have an event loop, and their own mind about signals. False if `stop` ended it.

    Raises `Drifted` if a drift guard did.
    """
    stop = stop or asyncio.Event()
    if config.deterministic and ranks.count > 1:
        raise TrainError("deterministic is for one rank: sums over several are rounded by their number")
    check_installed(config.logging)
    try:
        with tracing.running(config.tracing, "preceptor-trainer"):
            return await _parts(config, start, stop, ranks)
    except tracing.TracingUnavailable as error:
        raise TrainError(str(error)) from None


async def _parts(config: TrainConfig, start: Start, stop: asyncio.Event, ranks: Ranks) -> bool:
    """One, or with pauses between them several. False if `stop` ended it; raises `Drifted` if a drift guard did."""
    metrics = Metrics.of(config)
    try:
        with served(metrics, config.metrics):
            while isinstance(ended := await _part(config, start, stop, ranks, metrics), Drifted):
                if not ended.pauses:
                    raise ended
                with metrics.pausing():
                    if not await pause(config.out, ended, stop, config.guards.pause_limit_s, partial(_say, config)):
                        return False
                start = "resume"
            return ended
    except FolderInUse:
        raise TrainError(f"another run is at work in {config.out}: stop it, or set out") from None
    except OSError as error:
        raise TrainError(f"cannot write to {config.out}: {error.strerror or error}; set out") from error
    except (QueueUnavailable, QueueMisfit) as error:
        raise TrainError(f"{error}; the run can go on from its checkpoint by --resume") from error
    except torch.OutOfMemoryError as error:
        raise TrainError(f"out of memory: lower compute.micro_cohorts or cohorts_per_step ({error})") from error


async def _part(
    config: TrainConfig, start: Start, stop: asyncio.Event, ranks: Ranks, metrics: Metrics
) -> bool | Drifted:
    """Up to the end, or to where a drift guard ends it."""
    _prepare_torch(config)
    try:
        async with AsyncExitStack() as resources:
            resources.enter_context(sole_use(config.out))
            return await _run(config, start, stop, ranks, metrics, resources)
    except Drifted as drifted:
        return drifted.with_traceback(None)  # which holds the model


def _say(config: TrainConfig, what: str) -> None:
    """A line for whoever watches, before and after the telemetry's."""
    print(f"{config.run}: {what}", file=sys.stderr, flush=True)


def _prepare_torch(config: TrainConfig) -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(config.deterministic)


async def _run(
    config: TrainConfig,
    start: Start,
    stop: asyncio.Event,
    ranks: Ranks,
    metrics: Metrics,
    resources: AsyncExitStack,
) -> bool:
    begun = find_start(config, start, partial(_say, config))
    state = begun[1] if begun else None
    (config.out / PAUSED_FILE).unlink(missing_ok=True)
    (config.out / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    _say(config, f"loading the policy {config.model.path}")
    model, tokenizer = load_policy(config, ranks)
    codec = Codec(tokenizer)
    thoughts = thought_format(config, codec)
    ranks.tell("begin", config.model_dump_json(context=REVEALED).encode())
    learner = _learner(config, model, ranks)
    if begun:
        restore(learner, *begun)
    trackers = resources.enter_context(Trackers(config, learner.version))
    telemetry = resources.enter_context(Telemetry(config.out, config.run, config.steps, metrics, trackers.tell))
    traces = CohortTraces(config.run)
    resources.callback(traces.close)
    if learner.fallback and config.compute.shared_prefix != "off":
        telemetry.say(f"updates compute a cohort's prefix once a candidate: {learner.fallback}")
    ledger = resources.enter_context(CohortLedger(config.out / LEDGER_FILE))
    # The stream encodes in a thread of its own while the loop decodes: a tokenizer serves one thread at a time.
    encode = Codec(copy.deepcopy(tokenizer)).encode
    watch = Watch(config, telemetry, held_out_windows(config, codec, telemetry.say), state.guards if state else None)
    passed_over = PassedOver(telemetry.say)
    documents = partial(stream_documents, passed_over=passed_over)
    start_at = state.position if state else Position()
    stream = WindowStream(config.data, encode, start=start_at, documents=documents)
    rewriter = await _rewriter(config, resources) if config.pool.rewrite else None
    board = open_board(config, codec, step=learner.version, resources=resources)
    telemetry.followed_by(board)
    judges: Judges | None = None
    queue_status: Callable[[], Awaitable[QueueStatus | None]] = _no_queue
    if config.judged:
        judges, queue_status = await _judges(config, codec, telemetry, traces, board, resources)
    engine = await _engine(config, learner, codec, telemetry, resources) if config.pool.rollouts else None
    first = state.in_flight if state else ()
    prepared = RewriteAhead(stream, codec, config.rewrite, rewriter, telemetry.count, first, thoughts, traces.rewriting)
    parts = Parts(
        codec, thoughts, learner, prepared, engine, judges, queue_status, telemetry, watch, ledger, traces, board
    )
    await resources.enter_async_context(board)
    if not config.judged:
        telemetry.say("it asks no judge and so has no Redis: the services' page does not show it")
    loop = TrainLoop(config, parts, state)
    with metrics.holding(loop.held):
        finished = await loop.run(stop)
    telemetry.total("data", documents_too_short=stream.skipped, **passed_over.figures)
    return finished


def _learner(config: TrainConfig, model: Any, ranks: Ranks) -> Learner:
    objective = make_objective(config.objective, config.continuation_tokens)
    return Learner(
        model, objective, config.optimizer, config.compute, config.steps, ranks, config.objective.refresh_reference
    )


def load_policy(config: TrainConfig, ranks: Ranks = ALONE) -> tuple[Any, Any]:
    """Model (on its device) and tokenizer, with the control tokens, checked against the windows that they are to be
    used for.
    """
    path = config.model.path
    model, tokenizer = load_pretrained(path, "the policy", key="model.path")
    add_tokens(model, tokenizer, [control.token for control in config.controls or ()])
    check_context(config, model.config)
    return model.to(device_named(config.device, ranks.local_rank)), tokenizer


async def _judges(
    config: TrainConfig,
    codec: Codec,
    telemetry: Telemetry,
    traces: CohortTraces,
    board: Board,
    resources: AsyncExitStack,
) -> tuple[Judges, Callable[[], Awaitable[QueueStatus | None]]]:
    settings, url = config.judge, shown(config.judge.redis_url)
    # A Redis that goes away during the run is waited for; one that is not there at the start is not.
    try:
        redis = connect(settings.redis_url)
        resources.push_async_callback(redis.aclose)
        for warning in await check_redis(redis, namespace=settings.namespace):
            telemetry.say(f"{url}: {warning}")
    except QueueUnavailable as error:
        raise TrainError(f"no Redis at {url} ({error}): start one or set judge.redis_url") from error
    except QueueMisfit as error:
        raise TrainError(f"the Redis at {url} cannot be used: {error} (judge.redis_url)") from error

    def note(trouble: Trouble | None) -> None:
        telemetry.trouble(trouble)
        if trouble is None:
            judges.doubt()

    queue = CohortQueue(
        redis,
        bound=settings.bound,
        namespace=settings.namespace,
        patience_s=settings.patience_s,
        on_trouble=note,
    )
    name = name_in_redis(config.out, config.run)
    # A part of the run of its own, so that no verdict on other candidates can be taken for one on this part's.
    part = f"{name}.{secrets.token_hex(4)}"
    judges = Judges(queue, part, settings, codec, telemetry.count, config.composition, traces.traceparent, board.shows)
    for left_over in await queue.runs():
        if left_over.rpartition(".")[0] == name:
            await queue.withdraw(left_over)
    resources.push_async_callback(judges.leave)
    operations = QueueOperations(redis, namespace=settings.namespace)

    async def status() -> QueueStatus | None:
        try:
            return await asyncio.wait_for(operations.status(), _STATUS_PATIENCE_S)
        except (RedisError, QueueUnavailable, TimeoutError):
            return None

    return judges, status


async def _no_queue() -> None:
    return None


async def _rewriter(config: TrainConfig, resources: AsyncExitStack) -> AsyncPreceptorClient:
    client = AsyncPreceptorClient(rewrite_url=config.rewrite.url, api_key=config.rewrite.key)
    await resources.enter_async_context(client)
    health = await client.health("rewrite")
    if health.status != "ok":
        raise TrainError(
            f"the rewrite service at {shown(config.rewrite.url)} is {health.status} ({health.detail}): start it, "
            "set rewrite.url, or set pool.rewrite to false"
        )
    return client


async def _engine(
    config: TrainConfig, learner: Learner, codec: Codec, telemetry: Telemetry, resources: AsyncExitStack
) -> PolicyEngine:
    engine: PolicyEngine
    if config.rollouts.engine == "vllm":
        sync_dir = config.rollouts.vllm.sync_dir or config.out / "weights"
        engine = VllmEngine(config.rollouts.vllm, sync_dir, eos_id=codec.eos_id)
        resources.push_async_callback(engine.close)
        await engine.load(learner.model, learner.version)
    else:
        engine = TorchEngine(learner.model, eos_id=codec.eos_id, version=learner.version)
        if engine.fallback:
            telemetry.say(f"rollouts each have a copy of their prefix: {engine.fallback}")
    return engine
