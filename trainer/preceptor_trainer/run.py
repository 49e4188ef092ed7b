"""One training run, from its configuration to its last checkpoint.

In: a `TrainConfig`; a policy with its tokenizer, documents and, as far as the configuration asks for them, Redis, a
rewrite service and a vLLM server. Out: in `<out>`: `config.yaml`, `metrics.jsonl`, `summary.json`, `checkpoints/`,
`final/`. Everything that is needed is looked for before the first document is read. Raises `TrainError`, whose text
says what to change.
"""

from __future__ import annotations

import asyncio
import copy
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import torch
from redis.exceptions import RedisError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from preceptor_client import AsyncPreceptorClient
from preceptor_client.config import dump_config
from preceptor_client.queue import CohortQueue, connect
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.stream import WindowStream
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from preceptor_trainer.loop import TrainLoop
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.rewrite_ahead import RewriteAhead
from preceptor_trainer.rollouts.engine import PolicyEngine
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.rollouts.vllm_engine import VllmEngine
from preceptor_trainer.telemetry import Telemetry


def train(config: TrainConfig) -> Path:
    """Run `config` to its end; the final checkpoint's folder. SIGINT: KeyboardInterrupt, SIGTERM: CancelledError."""
    asyncio.run(_until_terminated(config))
    return config.out / "final"


async def _until_terminated(config: TrainConfig) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await run(config)


async def run(config: TrainConfig) -> None:
    """`train` for those who have an event loop, and their own mind about signals."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    except OSError as error:
        raise TrainError(f"cannot write to {config.out}: {error.strerror}; set out") from error
    model, tokenizer = load_policy(config)
    codec = Codec(tokenizer)
    # The stream encodes in a thread of its own while the loop decodes: a tokenizer serves one thread at a time.
    stream = WindowStream(config.data, Codec(copy.deepcopy(tokenizer)).encode)
    objective = make_objective(config.objective, config.data.suffix_tokens)
    learner = Learner(model, objective, config.optimizer, config.steps)
    async with AsyncExitStack() as resources:
        telemetry = resources.enter_context(Telemetry(config.out, config.run, config.steps))
        rewriter = await _rewriter(config, resources) if config.pool.rewrite else None
        queue = await _queue(config, resources) if config.judged else None
        engine = await _engine(config, model, codec, resources) if config.pool.rollouts else None
        prepared = RewriteAhead(stream, codec, config.rewrite, rewriter, telemetry.count)
        try:
            await TrainLoop(config, codec, learner, prepared, engine, queue, telemetry).run()
        except RedisError as error:
            raise TrainError(f"Redis at {config.judge.redis_url} does not answer any more: {error}") from error
        except torch.OutOfMemoryError as error:
            raise TrainError(f"out of memory: lower optimizer.micro_cohorts or cohorts_per_step ({error})") from error
        telemetry.total("data", documents_too_short=stream.skipped)


def load_policy(config: TrainConfig) -> tuple[Any, Any]:
    """Model (on its device) and tokenizer, checked against the windows that they are to be used for."""
    path = config.model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, config.model.dtype))
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot load the policy {path}: {error}; set model.path") from error
    if len(tokenizer) > model.config.vocab_size:
        raise TrainError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens and the model {model.config.vocab_size}: "
            "they do not belong together"
        )
    window = config.data.prefix_tokens + config.data.suffix_tokens
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and window > positions:
        raise TrainError(
            f"data.prefix_tokens + data.suffix_tokens is {window}, {path} takes {positions} tokens: lower one of them"
        )
    return model.to(_device(config.device)), tokenizer


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device is cuda and torch sees no GPU: set device to cpu or auto")
    return torch.device(name)


async def _queue(config: TrainConfig, resources: AsyncExitStack) -> CohortQueue:
    # A Redis that goes away during the run is waited for; one that is not there at the start is not.
    probe = connect(config.judge.redis_url, patience_s=1)
    resources.push_async_callback(probe.aclose)
    try:
        await probe.ping()
    except RedisError as error:
        raise TrainError(f"no Redis at {config.judge.redis_url}: {error}; start one or set judge.redis_url") from error
    redis = connect(config.judge.redis_url)
    resources.push_async_callback(redis.aclose)
    return CohortQueue(redis, bound=config.judge.bound, namespace=config.judge.namespace)


async def _rewriter(config: TrainConfig, resources: AsyncExitStack) -> AsyncPreceptorClient:
    client = AsyncPreceptorClient(rewrite_url=config.rewrite.url, api_key=config.rewrite.api_key)
    await resources.enter_async_context(client)
    health = await client.health("rewrite")
    if health.status != "ok":
        raise TrainError(
            f"the rewrite service at {config.rewrite.url} is {health.status} ({health.detail}): start it, "
            "set rewrite.url, or set pool.rewrite to false"
        )
    return client


async def _engine(config: TrainConfig, model: Any, codec: Codec, resources: AsyncExitStack) -> PolicyEngine:
    engine: PolicyEngine
    if config.rollouts.engine == "vllm":
        sync_dir = config.rollouts.vllm.sync_dir or config.out / "weights"
        engine = VllmEngine(config.rollouts.vllm, sync_dir, eos_id=codec.eos_id)
        resources.push_async_callback(engine.close)
        await engine.load(model, 0)
    else:
        engine = TorchEngine(model, eos_id=codec.eos_id)
    return engine
