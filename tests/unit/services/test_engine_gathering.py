from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from preceptor_client.contract import Usage
from preceptor_services.engine import Answer, EngineError, Generation, Prompt
from preceptor_services.engine.gathering import Call, Gathering
from preceptor_services.priority import Priority

WORDS = Generation("completion", max_tokens=1)
OTHER = Generation("completion", max_tokens=2)
ANOTHER = Generation("completion", max_tokens=3)


@dataclass
class Server:
    """Echoes prompts; requests wait for `open`, and those with the word `bad` are refused as a whole."""

    requests: list[list[str]] = field(default_factory=list)
    priorities: list[Priority] = field(default_factory=list)
    cancelled: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def place(self, priority: Priority) -> AsyncIterator[None]:
        self.priorities.append(priority)
        yield

    async def put(self, prompts: Sequence[Prompt], generation: Generation) -> tuple[list[Answer], Usage]:
        self.requests.append([prompt.text for prompt in prompts])
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if any(prompt.text == "bad" for prompt in prompts):
            raise EngineError("rejected", "too long", status=400)
        cost = Usage(calls=len(prompts), prompt_tokens=7 * len(prompts), completion_tokens=len(prompts))
        return [Answer((prompt.text,)) for prompt in prompts], cost


def call(*texts: str, generation: Generation = WORDS, priority: Priority = Priority.BULK, most: int = 4) -> Call:
    return Call([Prompt(text) for text in texts], generation, priority, most)


Asked = asyncio.Task[tuple[list[Answer], Usage]]


async def asked(gathering: Gathering, *calls: Call) -> list[Asked]:
    """The calls under way, as far as they come without an answer."""
    tasks = [asyncio.create_task(gathering.ask(one)) for one in calls]
    await settled()
    return tasks


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def in_hand(monkeypatch: pytest.MonkeyPatch) -> tuple[Server, Gathering, list[Asked]]:
    """A server whose requests take long, and the two requests' worth that it has in hand."""
    monkeypatch.setattr("preceptor_services.engine.gathering._LONGEST_S", 60.0)
    server = Server()
    gathering = Gathering(server.place, server.put)
    gathering._request_s = 60.0
    tasks = await asked(gathering, call(*"abcd"), call(*"efgh"))
    assert server.requests == [list("abcd"), list("efgh")]
    return server, gathering, tasks


@pytest.fixture
def busy(in_hand: tuple[Server, Gathering, list[Asked]]) -> tuple[Server, Gathering]:
    """The same for those who ask for more."""
    return in_hand[:2]


def texts(asked: Asked) -> list[str]:
    return [answer.texts[0] for answer in asked.result()[0]]


async def test_a_call_leaves_at_once_while_little_is_in_hand() -> None:
    server = Server()
    await asked(Gathering(server.place, server.put), *[call("x") for _ in range(8)])
    assert server.requests == [["x"]] * 8


async def test_calls_gather_while_the_server_is_busy_and_leave_when_it_has_room(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    tasks = await asked(gathering, call("x"), call("long", "y", priority=Priority.INTERACTIVE))
    assert len(server.requests) == 2
    server.open.set()
    await asyncio.gather(*tasks)
    assert server.requests[2:] == [["x", "long", "y"]]
    assert server.priorities[2:] == [Priority.INTERACTIVE]
    assert [texts(task) for task in tasks] == [["x"], ["long", "y"]]
    assert sum((task.result()[1] for task in tasks), Usage()) == Usage(calls=3, prompt_tokens=21, completion_tokens=3)
    assert [(cost.calls, cost.completion_tokens) for _, cost in (task.result() for task in tasks)] == [(1, 1), (2, 2)]


async def test_a_requests_worth_leaves_though_the_server_is_busy(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    await asked(gathering, call("1", "2", "3"), call("4"), call("5", "6", "7"), call("8", "9"))
    assert server.requests[2:] == [["1", "2", "3", "4"], ["5", "6", "7"]]


async def test_only_calls_that_are_asked_alike_travel_together(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    tasks = await asked(gathering, call("x"), call("y", generation=OTHER), call("z"))
    server.open.set()
    await asyncio.gather(*tasks)
    assert sorted(server.requests[2:]) == [["x", "z"], ["y"]]


async def test_what_there_is_room_for_leaves_the_largest_first(in_hand: tuple[Server, Gathering, list[Asked]]) -> None:
    server, gathering, (first, _) = in_hand
    await asked(gathering, call("x"), call(*"123", generation=OTHER), call("y", generation=ANOTHER))
    first.cancel()
    await settled()
    # Four of two requests' eight prompts are in hand: there is room for three, then still for one.
    assert server.requests[2:] == [list("123"), ["x"]]


async def test_nobody_waits_longer_than_a_request_takes(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    gathering._request_s = 0.0
    await asked(gathering, call("x"))
    assert server.requests[2:] == [["x"]]


async def test_a_call_that_goes_away_takes_no_other_with_it(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    early, late, stays = await asked(gathering, call("early"), call("late"), call("stays"))
    early.cancel()
    await asked(gathering, call(*"123", generation=OTHER), call("4", generation=OTHER))
    await asked(gathering, call("5", "6"))
    late.cancel()
    await settled()
    assert ["late", "stays", "5", "6"] in server.requests
    server.open.set()
    await stays
    assert texts(stays) == ["stays"]


async def test_a_request_ends_when_all_its_calls_have_gone(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    tasks = await asked(gathering, call("1", "2"), call("3", "4"))
    for task in tasks:
        task.cancel()
    await settled()
    assert server.requests[2:] == [list("1234")]
    assert server.cancelled == 1


async def test_a_refused_prompt_is_told_its_own_caller_only(busy: tuple[Server, Gathering]) -> None:
    server, gathering = busy
    good, bad = await asked(gathering, call("good"), call("bad"))
    server.open.set()
    await asyncio.wait([good, bad])
    assert texts(good) == ["good"]
    assert isinstance(error := bad.exception(), EngineError)
    assert error.of_the_prompt
