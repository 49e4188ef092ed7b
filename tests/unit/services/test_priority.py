from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.priority import Priority, PriorityPlaces

INTERACTIVE, BULK, TRAINING = Priority


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


class Visitors:
    """Tasks that take a place, are noted in `served`, and hold it until `leave`."""

    def __init__(self, places: int) -> None:
        self.places = PriorityPlaces(places)
        self.served: list[int] = []
        self.inside: dict[int, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def _visit(self, number: int, priority: Priority) -> None:
        async with self.places.held(priority):
            self.served.append(number)
            self.inside[number] = asyncio.Event()
            try:
                await self.inside[number].wait()
            finally:
                del self.inside[number]

    async def come(self, *priorities: Priority) -> None:
        for priority in priorities:
            self.tasks.append(asyncio.create_task(self._visit(len(self.tasks), priority)))
        await settle()

    async def leave(self, number: int) -> None:
        self.inside[number].set()
        await settle()

    async def leave_all(self) -> None:
        while self.inside:
            await self.leave(next(iter(self.inside)))


async def test_the_urgent_go_first_and_equals_in_the_order_they_came() -> None:
    visitors = Visitors(1)
    await visitors.come(TRAINING, TRAINING, BULK, INTERACTIVE, BULK, INTERACTIVE)
    await visitors.leave_all()
    assert visitors.served == [0, 3, 5, 2, 4, 1]


async def test_an_endless_stream_of_urgent_calls_leaves_turns_to_the_others() -> None:
    visitors = Visitors(1)
    await visitors.come(INTERACTIVE, BULK, TRAINING)
    for _ in range(20):
        await visitors.come(INTERACTIVE)
        await visitors.leave(next(iter(visitors.inside)))
    assert visitors.served.index(1) < visitors.served.index(2), "the longest waiting first"
    await visitors.leave_all()


async def test_a_place_given_to_a_cancelled_caller_goes_to_the_next() -> None:
    visitors = Visitors(1)
    await visitors.come(BULK, BULK, BULK)
    visitors.inside[0].set()
    await asyncio.sleep(0)
    assert not visitors.inside, "the place has passed to 1, which has not run yet"
    visitors.tasks[1].cancel()
    await settle()
    assert visitors.served == [0, 2]
    await visitors.leave_all()
    assert visitors.places.load == 0


@given(
    places=st.integers(1, 3),
    events=st.lists(
        st.one_of(
            st.tuples(st.just("come"), st.sampled_from(Priority)),
            st.tuples(st.just("leave"), st.integers(0, 9)),
            st.tuples(st.just("cancel"), st.integers(0, 9)),
        ),
        max_size=40,
    ),
)
def test_whoever_comes_leaves_or_gives_up_places_are_neither_lost_nor_made(
    places: int, events: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        visitors = Visitors(places)
        for kind, choice in events:
            if kind == "come":
                await visitors.come(Priority(choice))
            elif kind == "leave" and visitors.inside:
                await visitors.leave(list(visitors.inside)[choice % len(visitors.inside)])
            elif kind == "cancel" and visitors.tasks:
                visitors.tasks[choice % len(visitors.tasks)].cancel()
                await settle()
            open_tasks = sum(not task.done() for task in visitors.tasks)
            assert len(visitors.inside) == min(places, open_tasks)
            assert visitors.places.load == open_tasks
        await visitors.leave_all()
        assert max(Counter(visitors.served).values(), default=0) <= 1
        assert visitors.places.load == 0

    asyncio.run(run())
