"""What a run needs beside its own process: workers at the queue, the rewrite service, the policy's vLLM.

Each is asked as the trainer asks it, and waited for as long as a doctor may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from preceptor_client import AsyncPreceptorClient
from preceptor_client.checks import Check, Grade
from preceptor_client.errors import PreceptorError
from preceptor_client.masking import shown
from preceptor_client.queue import QueueMisfit, QueueOperations, QueueUnavailable, connect
from preceptor_trainer.cohorts import TokenCandidate
from preceptor_trainer.config import JudgeConfig, TrainConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.doctor.policy import Policy
from preceptor_trainer.doctor.versions import vllm_found
from preceptor_trainer.errors import TrainError
from preceptor_trainer.rewrite_ahead import RewriteAhead
from preceptor_trainer.rollouts.vllm_server import Away, VllmServer

PATIENCE_S = 5.0
"""For a service that is away."""
ANSWER_S = 60.0
"""For an answer."""
_REWRITES: dict[str, Grade] = {"rewritten": "ok", "unchanged": "ok", "refused": "warning", "malformed": "warning"}
"""By what became of one; everything else is a failure."""


async def check_workers(judge: JudgeConfig) -> Check:
    """Whether somebody judges what is submitted."""
    try:
        async with connect(judge.redis_url) as redis:
            status = await QueueOperations(redis, namespace=judge.namespace).status()
    except (QueueUnavailable, QueueMisfit) as error:
        return Check("workers", "failure", str(error), "set judge.redis_url")
    found = f"{status.workers} at the queue `{judge.namespace}`, {status.waiting} cohorts wait"
    if status.workers:
        return Check("workers", "ok", found)
    advice = (
        "start one (`preceptor up`, `python -m preceptor_services worker`), or set judge.redis_url, judge.namespace"
    )
    return Check("workers", "failure", found, advice)


async def check_rewriting(
    config: TrainConfig, policy: Policy | None, windows: Sequence[Window]
) -> tuple[list[Check], TokenCandidate | None]:
    """Whether the service is ready, and what it makes of a window; with the rewrite, if there is one."""
    client = AsyncPreceptorClient(rewrite_url=config.rewrite.url, api_key=config.rewrite.key)
    async with client:
        health = await client.health("rewrite")
        if health.status != "ok":
            found = f"{shown(config.rewrite.url)}: {health.status} {health.detail or ''}".strip()
            return [Check("rewrite", "failure", found, "start it (`preceptor up`), or set rewrite.url")], None
        ready = Check("rewrite", "ok", f"ready at {shown(config.rewrite.url)}")
        if policy is None or not windows:
            return [ready], None
        outcomes: list[str] = []
        patient = config.rewrite.model_copy(update={"patience_s": PATIENCE_S})
        first = [(windows[0], Position())]
        ahead = RewriteAhead(first, policy.codec, patient, client, outcomes.append, thoughts=policy.thoughts)
        try:
            async with asyncio.timeout(ANSWER_S):
                [prepared] = [prepared async for prepared in ahead.windows()]
        except TimeoutError:
            return [ready, Check("a rewrite", "failure", f"no answer in {ANSWER_S:g} s", "see the service's log")], None
        except (TrainError, PreceptorError) as error:
            return [ready, Check("a rewrite", "failure", str(error), "set rewrite.url or rewrite.api_key")], None
    return [ready, rewrite_found(outcomes[0].removeprefix("rewrite_"))], prepared.rewrite


def rewrite_found(outcome: str) -> Check:
    """What became of one, as `RewriteAhead` counts it. Pure."""
    grade = _REWRITES.get(outcome, "failure")
    advice = {
        "ok": "",
        "warning": "its window goes on without one; if it stays so, see the rewriter's rubric",
        "failure": "see the service's log, its rubric, and the lengths that its teacher takes",
    }
    return Check("a rewrite", grade, outcome, advice[grade])


async def check_policy_server(config: TrainConfig) -> list[Check]:
    """The policy's vLLM: its version, its context, and whether its weights can be replaced."""
    settings = config.rollouts.vllm
    checks: list[Check] = []
    async with AsyncExitStack() as resources:
        try:
            server = VllmServer(settings.url, settings.model, PATIENCE_S)
            resources.push_async_callback(server.close)
            checks.append(vllm_found(await server.version()))
            checks.append(context_found(config, await server.context()))
            await server.mark()  # one of the development endpoints
            checks.append(Check("policy's vLLM", "ok", f"ready at {server.url}, its weights can be replaced"))
        except (Away, TrainError) as error:
            advice = "start it (docs/rollouts.md), or set rollouts.vllm.url and rollouts.vllm.model"
            checks.append(Check("policy's vLLM", "failure", str(error), advice))
    return checks


def context_found(config: TrainConfig, tokens: int | None) -> Check:
    """Whether the server takes the run's longest sequence. Pure."""
    found = f"takes {tokens} tokens, {config.sequence_keys} is {config.sequence_tokens}"
    if tokens is not None and tokens < config.sequence_tokens:
        return Check(
            "policy's vLLM context", "failure", found, f"start it with --max-model-len {config.sequence_tokens}"
        )
    return Check("policy's vLLM context", "ok", found)
