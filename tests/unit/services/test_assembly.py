from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from pydantic import ValidationError

from preceptor_client.contract import JudgeRequest
from preceptor_client.rubrics import RubricError
from preceptor_services.assembly import Engines, assemble
from preceptor_services.engine import Engine
from preceptor_services.judging import Judge, Panel
from preceptor_services.metrics import Metrics
from preceptor_services.settings import EngineSettings, PanelSettings, ServiceSettings
from served import scripted_teacher, served

OpenEngine = Callable[..., Awaitable[Engine]]


async def test_enough_engines_make_a_panel_ready(
    open_engine: OpenEngine, metrics: Metrics, faulty_server: type
) -> None:
    async with Engine(EngineSettings(), metrics) as absent:
        present = await open_engine(faulty_server())
        assert Engines([absent, present], 1).ready
        assert Engines([absent, present], 1).known
        assert "not answered yet" in (Engines([absent, present], 1).trouble or "")
        assert not Engines([absent, present], 2).ready
        await asyncio.wait_for(Engines([absent, present], 1).wait_ready(), 5)
        both = asyncio.create_task(Engines([absent, present], 2).wait_ready())
        await asyncio.wait([both], timeout=0.05)
        assert not both.done()
        both.cancel()


class Wavering:
    """An engine that is ready while its event is set, and counts who begins to wait for that."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.waits = 0

    @property
    def ready(self) -> bool:
        return self.up.is_set()

    async def wait_ready(self) -> None:
        self.waits += 1
        await self.up.wait()


async def test_an_engine_that_is_lost_while_another_is_waited_for_is_waited_for_without_a_spin() -> None:
    first, second = Wavering(), Wavering()
    first.up.set()
    both = asyncio.create_task(Engines(cast("list[Engine]", [first, second]), 2).wait_ready())
    await asyncio.sleep(0)
    first.up.clear()
    second.up.set()
    await asyncio.wait([both], timeout=0.02)
    assert not both.done()
    assert (first.waits, second.waits) == (1, 1)
    first.up.set()
    await asyncio.wait_for(both, 5)


async def test_the_settings_make_a_judge_or_a_panel_that_runs() -> None:
    with served(scripted_teacher(lambda prompt: "safe")) as url:
        engine = EngineSettings(urls=(url,))
        settings = ServiceSettings(engine=engine, rubrics=("nano",))
        assert isinstance(assemble(settings).judge, Judge)
        second = {"engine": {"urls": url}, "rubrics": "nano"}
        panel = PanelSettings.model_validate({"members": {"second": second}, "combine": "minimum"})
        parts = assemble(settings.model_copy(update={"panel": panel}))
        assert isinstance(parts.judge, Panel)
        async with parts.running():
            await asyncio.wait_for(parts.engines.wait_ready(), 10)
            cohort = {"id": "c", "prefix": "p", "candidates": [{"id": "a", "text": "good"}]}
            response = await parts.judge.judge(JudgeRequest.model_validate({"cohort": cohort, "axes": ["safety"]}))
        assert set(response.panel) == {"first", "second"}


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ({"quorum": 2}, "quorum 2 is more than the 1 judges there are"),
        ({"members": {"first": {"engine": {}}}}, "'first' is the name of the service's own judge"),
    ],
)
def test_a_panel_that_cannot_sit_is_refused(panel: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PanelSettings.model_validate(panel)


def test_rubrics_that_are_not_there_are_named() -> None:
    with pytest.raises(RubricError, match="'none' is neither a packaged set"):
        assemble(ServiceSettings(rubrics=("none",)))
