"""The engine over two addresses of a real vLLM: itself, and a relay in front of it that dies and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from preceptor_services.engine import Answer, Engine, Generation, Prompt
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = pytest.mark.slow
ONE_TOKEN = Generation("completion", max_tokens=1, labels=("safe", "unsafe"), constraint="tokens")
COHORTS = [f"cohort-{number}" for number in range(16)]


class Relay:
    """Passes TCP on to `url`; `stop` cuts every connection. With `held` set it takes what comes and passes on none."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.held = False
        self.completions = 0
        self.arrived = asyncio.Event()
        """A request for completions has come."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        finally:
            for end in (writer, back):
                self._open.discard(end)
                end.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if b"POST /v1/completions" in data:
                    self.completions += 1
                    self.arrived.set()
                if not self.held:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def watched(metrics: Metrics, *urls: str) -> AsyncIterator[Engine]:
    async with Engine(EngineSettings(urls=urls), metrics) as engine:
        watch = asyncio.create_task(engine.watch([ONE_TOKEN]))
        await until(lambda: engine.trouble is None)
        yield engine
        watch.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for is a state that has no event
            await asyncio.sleep(0.01)


async def ask(engine: Engine, cohort: str) -> list[Answer]:
    deadline = asyncio.get_running_loop().time() + 60
    prompts = [Prompt(f"<safety> {text} <answer>") for text in ("one", "two")]
    answers, _ = await engine.ask(prompts, ONE_TOKEN, deadline=deadline, max_prompts=8, affinity=cohort)
    return answers


async def test_a_replica_that_dies_is_replaced_and_gets_its_cohorts_back(teacher_vllm: TeacherServer) -> None:
    relay, metrics = Relay(teacher_vllm.url), Metrics()
    await relay.start()

    async def through_the_relay(engine: Engine) -> list[str]:
        """The cohorts whose calls went that way."""
        found = []
        for cohort in COHORTS:
            before = relay.completions
            answers = await ask(engine, cohort)
            assert [answer.texts for answer in answers] == expected
            if relay.completions > before:
                found.append(cohort)
        return found

    async with watched(metrics, teacher_vllm.url, relay.url) as engine:
        assert engine.served.teacher.revision.startswith("sha256:")
        expected = [answer.texts for answer in await ask(engine, "first")]
        assert all(text.strip() in ("safe", "unsafe") for (text,) in expected)
        home = await through_the_relay(engine)
        assert 0 < len(home) < len(COHORTS)

        relay.held = True
        relay.arrived.clear()
        asking = asyncio.create_task(ask(engine, home[0]))
        await relay.arrived.wait()
        await relay.stop()
        assert [answer.texts for answer in await asking] == expected, "the other replica answered"
        assert engine.ready
        assert relay.url in (engine.trouble or "")
        assert await through_the_relay(engine) == []
        exposed = metrics.exposition().decode()
        assert f'preceptor_engine_ready{{replica="127.0.0.1:{relay.port}"}} 0.0' in exposed
        assert "preceptor_engine_switches_total 1.0" in exposed

        relay.held = False
        await relay.start()
        await until(lambda: engine.trouble is None)
        assert await through_the_relay(engine) == home
