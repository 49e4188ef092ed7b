"""What the engine makes of a server that goes away, comes back and answers oddly. That a healthy vLLM does what is
asked, and that a restarted one really loses its mark, is in integration/test_train_engines.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.rollouts.config import VllmConfig
from preceptor_trainer.rollouts.engine import EngineError
from preceptor_trainer.rollouts.vllm_engine import VllmEngine
from preceptor_trainer.rollouts.vllm_server import UNMARKED, Away, VllmServer
from tiny_policy import tiny_llama

Reply = tuple[int, Any]
START = 99


class ScriptedVllm:
    """The few endpoints that the engine uses, over a real socket; a rollout is one id with its log-prob.

    `script[path]` are the next answers of a path, in place of the usual ones: a reply, or what makes one; None drops
    the connection.
    """

    def __init__(self) -> None:
        self.script: dict[str, Iterator[Reply | Callable[[], Reply] | None]] = {}
        self.asked: Counter[str] = Counter()
        self.sampled: list[Any] = []
        self.arrived = asyncio.Condition()
        self.port = 0
        self._server: asyncio.Server | None = None
        self.start()

    def start(self) -> None:
        """As a process that was started anew: the weights of its start folder, and no mark."""
        self.mark = UNMARKED
        self.model = tiny_llama(START)

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server
        self._server.close()

    async def wait_for(self, path: str, times: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.asked[path] >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            lengths = (line[15:] for line in head.splitlines() if line.lower().startswith("content-length:"))
            length = int(next(lengths, "0"))
            body = json.loads(await reader.readexactly(length) or b"null")
            async with self.arrived:
                self.asked[path] += 1
                self.arrived.notify_all()
            if reply := self._reply(path, body):
                status, content = reply
                text = content if isinstance(content, str) else json.dumps(content)
                writer.write(
                    f"HTTP/1.1 {status} x\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
                )
                await writer.drain()
        writer.close()

    def _reply(self, path: str, body: Any) -> Reply | None:
        for said in self.script.get(path, iter(())):
            return said() if callable(said) else said
        return self._usual(path, body)

    def _usual(self, path: str, body: Any) -> Reply:
        match path:
            case "/update_weight_version":
                self.mark = body["new_version"]
                return 200, {"success": True}
            case "/weight_info":
                return 200, {"weight_version": self.mark}
            case "/collective_rpc":
                folder = Path(body["kwargs"]["weights_path"])
                self.model.load_state_dict(load_file(folder / "model.safetensors"))
                return 200, {"results": [None]}
            case "/reset_prefix_cache":
                return 200, {"success": True}
            case "/v1/completions" if "prompt_logprobs" in body:
                ids = body["prompt"][0]
                steps = [{id: {"logprob": logp}} for id, logp in zip(ids[1:], logps(self.model, ids), strict=True)]
                return 200, {"choices": [{"index": 0, "prompt_logprobs": [None, *steps]}]}
            case "/v1/completions":
                self.sampled.append(body)
                texts = [[*prompt, 7] for prompt in body["prompt"] for _ in range(body["n"])]
                return 200, {
                    "choices": [
                        {
                            "index": index,
                            "token_ids": [7],
                            "logprobs": {"token_logprobs": logps(self.model, text)[-1:]},
                        }
                        for index, text in enumerate(texts)
                    ]
                }
        return 200, ""


def logps(model: Any, ids: list[int]) -> list[float]:
    with torch.inference_mode():
        found: list[float] = suffix_logps(model, [ids[:1]], [ids[1:]])[0][0].tolist()
    return found


@pytest.fixture
async def vllm() -> AsyncIterator[ScriptedVllm]:
    scripted = ScriptedVllm()
    await scripted.listen()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def make_engine(vllm: ScriptedVllm, tmp_path: Path) -> AsyncIterator[Callable[..., VllmEngine]]:
    made: list[VllmEngine] = []

    def make(**settings: Any) -> VllmEngine:
        config = VllmConfig(url=f"http://127.0.0.1:{vllm.port}", **settings)
        made.append(VllmEngine(config, tmp_path / "weights"))
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


@pytest.fixture
async def engine(make_engine: Callable[..., VllmEngine]) -> VllmEngine:
    """With the weights of `tiny_llama(1)` as version 1."""
    engine = make_engine()
    await engine.load(tiny_llama(1), 1)
    return engine


async def sampled(engine: VllmEngine) -> tuple[int, float]:
    """The version that a sample says it is of, and its log-prob."""
    rollouts = await engine.sample([[3, 4]], k=1, n_tokens=1)
    return rollouts.version, rollouts.of_prefix[0][0].logps[0]


def of(seed: int, version: int) -> tuple[int, Any]:
    """What a sample of `tiny_llama(seed)` must give."""
    return version, pytest.approx(logps(tiny_llama(seed), [3, 4, 7])[-1], abs=1e-4)


async def test_a_restart_between_two_samples_is_noticed_and_the_weights_are_handed_over_again(
    vllm: ScriptedVllm, engine: VllmEngine
) -> None:
    assert await sampled(engine) == of(1, version=1)
    assert of(START, version=1) != of(1, version=1)
    vllm.start()
    assert await sampled(engine) == of(1, version=1)
    assert vllm.asked["/collective_rpc"] == 2
    assert engine.waiting is None


async def test_no_two_rollouts_of_a_sample_share_their_random_numbers(vllm: ScriptedVllm, engine: VllmEngine) -> None:
    """vLLM begins each prompt of a request with the request's seed, and a prompt's i-th rollout with that plus i."""
    rollouts = await engine.sample([[3, 4], [5], [6, 7]], k=2, n_tokens=1, seed=11)
    assert [len(of_prefix) for of_prefix in rollouts.of_prefix] == [2, 2, 2]
    seeds = [body["seed"] + place for body in vllm.sampled for _ in body["prompt"] for place in range(body["n"])]
    assert sorted(seeds) == list(range(11, 17))


async def test_a_sample_whose_server_dies_is_repeated_when_it_is_back(vllm: ScriptedVllm, engine: VllmEngine) -> None:
    vllm.script["/v1/completions"] = iter([None])
    vllm.script["/update_weight_version"] = iter([(503, "starting")])
    sample = asyncio.create_task(sampled(engine))
    await vllm.wait_for("/update_weight_version", 2)
    assert "no answer from vLLM" in (engine.waiting or "")
    vllm.start()
    assert await sample == of(1, version=1)
    assert engine.waiting is None


async def test_a_load_waits_for_a_server_that_is_away_and_the_next_sample_waits_for_the_load(
    vllm: ScriptedVllm, engine: VllmEngine
) -> None:
    vllm.script["/update_weight_version"] = iter([None])
    load = asyncio.create_task(engine.load(tiny_llama(2), 2))
    sample = asyncio.create_task(sampled(engine))
    await load
    assert await sample == of(2, version=2)


async def test_a_restart_while_the_weights_are_handed_over_is_noticed(vllm: ScriptedVllm, engine: VllmEngine) -> None:
    def restart() -> Reply:
        vllm.start()
        return 200, {"success": True}

    vllm.script["/reset_prefix_cache"] = iter([restart])
    await engine.load(tiny_llama(2), 2)
    assert vllm.asked["/collective_rpc"] == 3
    assert await sampled(engine) == of(2, version=2)


@pytest.mark.parametrize("path", ["/collective_rpc", "/weight_info"])
async def test_after_a_load_that_was_cancelled_samples_are_of_the_version_before(
    vllm: ScriptedVllm, engine: VllmEngine, path: str
) -> None:
    def cancel() -> Reply:
        load.cancel()
        return 200, {"weight_version": vllm.mark}

    vllm.script[path] = iter([cancel])
    load = asyncio.create_task(engine.load(tiny_llama(2), 2))
    with pytest.raises(asyncio.CancelledError):
        await load
    assert await sampled(engine) == of(1, version=1)


async def test_a_cache_that_a_given_up_request_still_holds_is_not_taken_for_empty(
    vllm: ScriptedVllm, engine: VllmEngine
) -> None:
    vllm.script["/reset_prefix_cache"] = iter([(200, {"success": False})])
    await engine.load(tiny_llama(2), 2)
    assert vllm.asked["/reset_prefix_cache"] == 3


async def test_an_engine_that_died_is_told_from_a_request_that_it_does_not_take(
    vllm: ScriptedVllm, engine: VllmEngine
) -> None:
    vllm.script["/v1/completions"] = iter([(500, "EngineDeadError")])
    vllm.script["/health"] = iter([(503, "")])
    assert await sampled(engine) == of(1, version=1)
    vllm.script["/v1/completions"] = iter([(500, "no\n  such thing")])
    with pytest.raises(EngineError, match=r"refused /v1/completions with status 500: no such thing"):
        await sampled(engine)


@pytest.mark.parametrize(
    ("path", "reply", "said"),
    [
        ("/v1/completions", (400, "too long"), r"refused /v1/completions with status 400: too long"),
        ("/v1/completions", (200, "<html>"), r"does not answer as vLLM does; set rollouts\.vllm\.url"),
        ("/v1/completions", (200, {"choices": []}), r"answered 0 rollouts instead of 1"),
        ("/weight_info", (404, ""), r"has no /weight_info: start .* with VLLM_SERVER_DEV_MODE=1"),
        ("/weight_info", (200, {"weight_version": "preceptor-x-0"}), r"another run gives its weights to vLLM"),
    ],
)
async def test_what_waiting_cannot_help_is_an_error_at_once(
    vllm: ScriptedVllm, engine: VllmEngine, path: str, reply: Reply, said: str
) -> None:
    vllm.script[path] = iter([reply])
    with pytest.raises(EngineError, match=said):
        await sampled(engine)
    assert vllm.asked["/collective_rpc"] == 1


def test_an_address_that_is_none_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(EngineError, match=r"http://host:port is no address .*Invalid port.*: set rollouts\.vllm\.url"):
        VllmServer("http://host:port", "policy", 1)


async def test_patience_ends_and_says_how_to_go_on(vllm: ScriptedVllm, make_engine: Callable[..., VllmEngine]) -> None:
    engine = make_engine(patience_s=0.3)
    await engine.load(tiny_llama(1), 1)
    await vllm.stop()
    with pytest.raises(EngineError, match=r"no answer .* waited for 0 s \(rollouts\.vllm\.patience_s\).* --resume"):
        await sampled(engine)
    assert engine.waiting is None


async def test_a_server_that_dies_of_every_sample_is_not_restarted_for_ever(
    vllm: ScriptedVllm, make_engine: Callable[..., VllmEngine]
) -> None:
    engine = make_engine(patience_s=0.5)
    await engine.load(tiny_llama(1), 1)

    def marks() -> Iterator[Callable[[], Reply] | None]:
        def here() -> Reply:
            return 200, {"weight_version": vllm.mark}

        def lost() -> Reply:
            vllm.start()
            return here()

        while True:
            yield lost  # after the sample
            yield here  # after the weights were handed over again

    vllm.script["/weight_info"] = marks()
    with pytest.raises(EngineError, match=r"was restarted and has lost the policy's weights; it was waited for"):
        await sampled(engine)
    assert vllm.asked["/collective_rpc"] > 1


async def test_an_unanswered_question_is_given_up_when_the_server_loses_its_engine(vllm: ScriptedVllm) -> None:
    hangs = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        if path == "/health":
            writer.write(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        await hangs.wait()
        writer.close()

    dead = await asyncio.start_server(never, "127.0.0.1", 0)
    server = VllmServer(f"http://127.0.0.1:{dead.sockets[0].getsockname()[1]}", "policy", 300, watch_s=0.05)
    with pytest.raises(Away, match="lost its engine during /weight_info"):
        await server.mark()
    await server.close()
    hangs.set()
    dead.close()


async def test_only_the_copy_that_may_be_needed_again_is_kept(
    vllm: ScriptedVllm, make_engine: Callable[..., VllmEngine], tmp_path: Path
) -> None:
    def copies() -> list[str]:
        return sorted(folder.name for folder in (tmp_path / "weights").iterdir())

    (tmp_path / "weights" / "policy-version-7.partial").mkdir(parents=True)
    (tmp_path / "weights" / "mine").mkdir()
    engine = make_engine()
    for version in (1, 2):
        await engine.load(tiny_llama(version), version)
        assert copies() == ["mine", f"policy-version-{version}"]
    await engine.close()
    assert copies() == ["mine"]


async def test_weights_that_cannot_be_written_are_an_error_that_names_the_setting(
    make_engine: Callable[..., VllmEngine], tmp_path: Path
) -> None:
    (tmp_path / "weights").write_text("in the way")
    with pytest.raises(EngineError, match=r"cannot write the policy's weights to .*set rollouts\.vllm\.sync_dir"):
        await make_engine().load(tiny_llama(1), 1)
