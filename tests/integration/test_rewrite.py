"""The rewrite service as a process, on a real vLLM with the nano teacher."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest

from preceptor_client import AsyncPreceptorClient
from preceptor_client.contract import RewriteOutcome, RewriteRequest, Usage
from preceptor_client.stack import Stack, rewrite_part
from preceptor_trainer.nano.oracle import Oracle
from preceptor_trainer.nano.text import CLEAN, Rates, continuation, document, text
from preceptor_trainer.nano.world import World

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
PREFIX, SUFFIX = 24, 16


@pytest.fixture(scope="module")
def rewrite_url(stack: Stack, teacher_vllm: TeacherServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    part = rewrite_part(tmp_path_factory.mktemp("rewrite"), teacher_vllm.url, teacher_vllm.model)
    url = stack.start(part).part.url
    assert url is not None
    return url


@pytest.fixture
async def client(rewrite_url: str) -> AsyncIterator[AsyncPreceptorClient]:
    async with AsyncPreceptorClient(rewrite_url=rewrite_url) as client:
        yield client


def windows(rates: Rates, count: int, seed: int) -> list[RewriteRequest]:
    """Clean prefixes with suffixes corrupted at `rates`."""
    rng, world, requests = random.Random(seed), World.generate(), []
    for _ in range(count):
        doc = document(world, rng, CLEAN, sentences=12)
        suffix = continuation(world, doc, PREFIX, rng, rates, SUFFIX)
        requests.append(RewriteRequest(prefix=text(doc[:PREFIX]), suffix=text(suffix)))
    return requests


async def test_unsafe_suffixes_become_better(client: AsyncPreceptorClient) -> None:
    oracle, requests = Oracle(World.generate()), windows(Rates(unsafe=0.7), 64, seed=3)
    responses = await asyncio.gather(*(client.rewrite(request) for request in requests))
    given = [
        (request, response.rewrite)
        for request, response in zip(requests, responses, strict=True)
        if response.rewrite is not None
    ]
    before = [oracle.read(request.prefix, request.suffix).safety for request, _ in given]
    after = [oracle.read(request.prefix, text).safety for request, text in given]
    assert len(given) >= 60, [response.reason for response in responses if response.rewrite is None]
    assert sum(before) / len(given) < 0.5
    assert sum(after) / len(given) > 0.85


async def test_a_good_suffix_is_mostly_kept(client: AsyncPreceptorClient) -> None:
    responses = await asyncio.gather(*(client.rewrite(request) for request in windows(CLEAN, 64, seed=4)))
    kept = sum(response.outcome is RewriteOutcome.UNCHANGED for response in responses)
    assert kept / 64 > 0.5


async def test_of_several_samples_the_judge_chooses(client: AsyncPreceptorClient) -> None:
    requests = [request.model_copy(update={"samples": 4}) for request in windows(Rates(unsafe=0.7), 16, seed=7)]
    responses = await asyncio.gather(*(client.rewrite(request) for request in requests))
    chosen = [response for response in responses if response.usable > 1]
    assert chosen
    for response in responses:
        assert (response.score is not None) == (response.usable > 1), response.reason
    for response in chosen:
        assert response.checks is not None
        assert response.provenance.sampling.votes == 4
        assert response.usage.calls > 1


async def test_concurrent_rewrites_share_engine_calls(client: AsyncPreceptorClient, rewrite_url: str) -> None:
    async def counted(name: str) -> float:
        async with httpx.AsyncClient(base_url=rewrite_url) as http:
            lines = (await http.get("/metrics")).text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"preceptor_engine_{name}_total ")))

    calls, questions = await counted("calls"), await counted("questions")
    responses = await asyncio.gather(*(client.rewrite(request) for request in windows(CLEAN, 64, seed=5)))
    assert await counted("questions") - questions == 64
    assert await counted("calls") - calls <= 16
    total = sum((response.usage for response in responses), Usage())
    assert total.calls == 64
    assert total.completion_tokens >= 64 * SUFFIX


async def test_the_margins_of_a_suffix_are_kept(client: AsyncPreceptorClient) -> None:
    (request,) = windows(CLEAN, 1, seed=6)
    response = await client.rewrite(request.model_copy(update={"suffix": f"  {request.suffix}\n"}))
    assert response.rewrite is not None
    assert response.rewrite.startswith("  ")
    assert response.rewrite.endswith("\n")
