"""What every policy engine promises, held against the in-process engine and against a real vLLM server."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from preceptor_client.stack import vllm_part
from preceptor_client.stack.process import Process
from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.rollouts.config import VllmConfig
from preceptor_trainer.rollouts.engine import EngineError, PolicyEngine, Rollouts
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.rollouts.vllm_engine import VllmEngine, export_for_vllm
from preceptor_trainer.rollouts.vllm_transfer import GLOO_ARGUMENTS
from tiny_policy import tiny_llama, word_tokenizer

pytestmark = pytest.mark.timeout(600)  # the first test that needs vLLM waits for it to start

PREFIXES = [[5, 6, 7, 8, 9, 10], [11], [12, 13, 14]]


class PolicyServer:
    """A vLLM server that follows a policy; it starts with other weights than any test loads."""

    def __init__(self, directory: Path) -> None:
        start = export_for_vllm(tiny_llama(99), word_tokenizer(), directory / "start")
        self._part = vllm_part(
            start, "policy", directory, name="policy", max_model_len=64, development=True, extra=GLOO_ARGUMENTS
        )
        assert self._part.url
        self.url = self._part.url
        self.start()

    def start(self) -> None:
        self._process = Process(self._part)  # from the main thread: a process ends with the thread that started it
        self._process.wait_ready()

    def kill(self) -> None:
        """kill -9 of everything that belongs to it."""
        self._process.stop(0)


@pytest.fixture(scope="module")
def policy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyServer]:
    server = PolicyServer(tmp_path_factory.mktemp("policy"))
    yield server
    server.kill()


@pytest.fixture
def policy_url(policy_server: PolicyServer) -> str:
    return policy_server.url


EOS = 3


@pytest.fixture(params=["torch", *(pytest.param(sync, marks=pytest.mark.slow) for sync in ("files", "gloo"))])
async def make_engine(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[PolicyEngine]]]:
    """`await make_engine(eos_id=...)`: an engine with the weights of `tiny_llama(0)` as version 0."""
    made: list[PolicyEngine] = []

    async def make(**settings: Any) -> PolicyEngine:
        if request.param == "torch":
            made.append(TorchEngine(tiny_llama(0), **settings))
        else:
            url = request.getfixturevalue("policy_url")
            made.append(VllmEngine(VllmConfig(url=url, sync=request.param), tmp_path / "weights", **settings))
            await made[-1].load(tiny_llama(0), 0)
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


@pytest.fixture
async def engine(make_engine: Callable[..., Awaitable[PolicyEngine]]) -> PolicyEngine:
    return await make_engine()


def assert_logps_are_those_of(model: Any, sampled: Rollouts, tolerance: float = 1e-4) -> None:
    rows = [(prefix, rollout) for prefix, row in zip(PREFIXES, sampled.of_prefix, strict=True) for rollout in row]
    with torch.inference_mode():
        logps_rows, _ = suffix_logps(model, [prefix for prefix, _ in rows], [rollout.ids for _, rollout in rows])
    for row, (_, rollout) in zip(logps_rows.tolist(), rows, strict=True):
        assert row[: len(rollout.ids)] == pytest.approx(rollout.logps, abs=tolerance)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)])
async def test_k_rollouts_a_prefix_with_the_log_probs_of_a_plain_forward_pass(
    engine: PolicyEngine, temperature: float, top_p: float
) -> None:
    sampled = await engine.sample(PREFIXES, k=4, n_tokens=8, temperature=temperature, top_p=top_p, seed=3)
    assert sampled.version == 0
    assert [len(of_prefix) for of_prefix in sampled.of_prefix] == [4, 4, 4]
    assert all(len(rollout.ids) == len(rollout.logps) == 8 for of_prefix in sampled.of_prefix for rollout in of_prefix)
    assert_logps_are_those_of(tiny_llama(0), sampled)
    distinct = {rollout.ids for of_prefix in sampled.of_prefix for rollout in of_prefix}
    assert len(distinct) == 3 if temperature == 0 else len(distinct) > 6


async def test_a_rollout_ends_with_the_end_of_text_that_it_samples(
    make_engine: Callable[..., Awaitable[PolicyEngine]],
) -> None:
    engine = await make_engine(eos_id=EOS)
    sampled = await engine.sample(PREFIXES, k=48, n_tokens=20, seed=1)
    rollouts = [rollout for of_prefix in sampled.of_prefix for rollout in of_prefix]
    ended = [rollout for rollout in rollouts if EOS in rollout.ids]
    assert ended
    assert all(rollout.ids.index(EOS) == len(rollout.ids) - 1 for rollout in ended)
    assert all(len(rollout.ids) == 20 for rollout in rollouts if EOS not in rollout.ids)
    assert_logps_are_those_of(tiny_llama(0), sampled)


async def test_the_same_seed_samples_the_same_and_another_one_differently(engine: PolicyEngine) -> None:
    first, again, other = [await engine.sample(PREFIXES, k=2, n_tokens=8, seed=seed) for seed in (3, 3, 4)]
    assert [[r.ids for r in row] for row in first.of_prefix] == [[r.ids for r in row] for row in again.of_prefix]
    assert first.of_prefix != other.of_prefix


async def test_new_weights_are_sampled_from_once_they_are_loaded(engine: PolicyEngine) -> None:
    for version, seed in ((1, 1), (2, 2)):
        await engine.load(tiny_llama(seed), version)
        assert engine.version == version
        sampled = await engine.sample(PREFIXES, k=2, n_tokens=8, seed=5)
        assert sampled.version == version
        assert_logps_are_those_of(tiny_llama(seed), sampled)


@pytest.mark.slow
async def test_a_server_that_keeps_its_old_weights_is_an_error(policy_url: str, tmp_path: Path) -> None:
    engine = VllmEngine(VllmConfig(url=policy_url), tmp_path)
    await engine.load(tiny_llama(0), 0)
    stale, new = tiny_llama(0), tiny_llama(1)
    new.state_dict = stale.state_dict
    with pytest.raises(EngineError, match=r"differ from the policy's by .* does not serve these weights"):
        await engine.load(new, 1)
    await engine.close()


async def test_a_server_that_is_not_there_is_an_error_that_names_its_address(tmp_path: Path) -> None:
    engine = VllmEngine(VllmConfig(url="http://127.0.0.1:9"), tmp_path)
    with pytest.raises(EngineError, match="no weights yet"):
        await engine.sample(PREFIXES, k=1, n_tokens=1)
    with pytest.raises(EngineError, match=r"no answer from vLLM at http://127\.0\.0\.1:9"):
        await engine.load(tiny_llama(0), 0)
    await engine.close()


@pytest.mark.slow
async def test_a_server_that_dies_is_waited_for_and_one_that_was_restarted_samples_the_current_weights(
    policy_server: PolicyServer, tmp_path: Path
) -> None:
    idle = VllmEngine(VllmConfig(url=policy_server.url, sync="gloo"), tmp_path / "idle")
    await idle.load(tiny_llama(0), 0)
    await idle.load(tiny_llama(1), 1)
    before = await idle.sample(PREFIXES, k=2, n_tokens=8, seed=5)

    # Another engine, so that the first one cannot notice that the server is away for a while.
    busy = VllmEngine(VllmConfig(url=policy_server.url, patience_s=0.5), tmp_path / "busy")
    await busy.load(tiny_llama(1), 1)
    sampling = asyncio.create_task(sampled_for_ever(busy))
    await until_running(policy_server.url)
    policy_server.kill()
    with pytest.raises(EngineError, match=r"no answer from vLLM .* start the policy's server again, .* --resume"):
        await sampling
    await busy.close()

    policy_server.start()
    after = await idle.sample(PREFIXES, k=2, n_tokens=8, seed=5)
    assert_logps_are_those_of(tiny_llama(1), after)
    assert [[r.ids for r in row] for row in after.of_prefix] == [[r.ids for r in row] for row in before.of_prefix]
    await idle.close()


async def sampled_for_ever(engine: PolicyEngine) -> None:
    """One request after another: however fast the server and slow whoever looks, one is under way sooner or later."""
    for seed in itertools.count():
        await engine.sample(PREFIXES, k=64, n_tokens=40, seed=seed)


async def until_running(url: str) -> None:
    """Return when vLLM works on a request."""
    async with asyncio.timeout(120), httpx.AsyncClient(base_url=url, timeout=60) as http:
        while not re.search(r"^vllm:num_requests_running\{.*\} [1-9]", (await http.get("/metrics")).text, re.MULTILINE):
            pass


@pytest.mark.slow
async def test_a_server_that_cannot_read_the_weights_is_an_error(policy_url: str, tmp_path: Path) -> None:
    """Last, because vLLM does not come back from a reload that failed."""
    engine = VllmEngine(VllmConfig(url=policy_url), tmp_path)
    await engine.load(tiny_llama(0), 0)
    broken = tiny_llama(1)
    broken.state_dict = lambda: {"model.embed_tokens.weight": torch.zeros(3, 3)}
    with pytest.raises(EngineError, match=r"refused /collective_rpc with status 500"):
        await engine.load(broken, 1)
    assert engine.version == 0
    await engine.close()
