"""Calls to one server that travel together.

    call -> alone, while the server has little in hand
         -> with others of the same `Generation`, when a request's worth has gathered, when the server has room again
            (the largest first, as many as there is room for), or when as much time has passed as a request takes there

So the busier a server is, the larger the requests: it reads one of 64 prompts sooner than three of 20, and never idles
while a prompt waits. What waits here would otherwise wait there, behind what the server has in hand.
In: a call's prompts. Out: its answers, and its share of what the request cost.
Guarantees: a call that is cancelled takes no other with it, and the request too if it was the last; a request that is
refused for one prompt is put again call by call; the shares of the cost sum to it.
Waits for: a place, and the server. Raises `EngineError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from preceptor_client import tracing
from preceptor_client.contract import Usage
from preceptor_services.engine.cost import parts_of
from preceptor_services.engine.errors import EngineError
from preceptor_services.engine.protocol import Answer, Generation, Prompt
from preceptor_services.priority import Priority

_ENOUGH = 2
"""Requests' worth of prompts that keep a server busy: one that it works on, and one on its way there or back."""
_LONGEST_S = 1.0
"""That a call waits for others, however long a request takes."""

Place = Callable[[Priority], AbstractAsyncContextManager[None]]
Put = Callable[[Sequence[Prompt], Generation], Awaitable[tuple[list[Answer], Usage]]]
Part = tuple[list[Answer], Usage]


@dataclass(eq=False)
class Call:
    """Prompts of one caller, at most `max_prompts`. `sent` once they have left; `span` is the caller's, which waits."""

    prompts: Sequence[Prompt]
    generation: Generation
    priority: Priority
    max_prompts: int
    sent: bool = field(default=False, kw_only=True)
    span: tracing.Span = field(default=tracing.UNTRACED, kw_only=True)


@dataclass(eq=False)
class _Group:
    """Calls that will leave together; a closed one takes no more."""

    calls: list[Call] = field(default_factory=list)
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    travelling: asyncio.Task[dict[Call, Part]] | None = None
    shared: bool = False
    """Whether it left with several calls."""

    @property
    def size(self) -> int:
        return sum(len(call.prompts) for call in self.calls)


class Gathering:
    """Of one server: `place` gives a place there, `put` asks."""

    def __init__(self, place: Place, put: Put) -> None:
        self._place = place
        self._put = put
        self._in_hand = 0
        self._request_s = 0.0
        self._open: dict[Generation, _Group] = {}

    async def ask(self, call: Call) -> Part:
        """The answers to a call's prompts, and what they cost."""
        if (
            call.generation.endpoint != "completion"
            or len(call.prompts) >= call.max_prompts
            or self._in_hand < _ENOUGH * call.max_prompts
        ):
            return (await self._travel([call]))[call]
        group = self._joined(call)
        assert group.travelling is not None
        try:
            return (await asyncio.shield(group.travelling))[call]
        except asyncio.CancelledError:
            group.calls.remove(call)
            if not group.calls:
                self._close(call.generation, group)
                group.travelling.cancel()
            raise
        except EngineError as error:
            if not (error.of_the_prompt and group.shared):
                raise
            return (await self._travel([call]))[call]

    def _joined(self, call: Call) -> _Group:
        group = self._open.get(call.generation)
        if group is not None and group.size + len(call.prompts) > call.max_prompts:
            self._close(call.generation, group)
            group = None
        if group is None:
            group = self._open[call.generation] = _Group()
            group.travelling = asyncio.create_task(self._gather(call.generation, group))
        group.calls.append(call)
        if group.size == call.max_prompts:
            self._close(call.generation, group)
        return group

    def _close(self, generation: Generation, group: _Group) -> None:
        group.leave.set()
        if self._open.get(generation) is group:
            del self._open[generation]

    def _fill(self) -> None:
        """The largest groups leave, until the server has enough."""
        coming = self._in_hand
        for generation, group in sorted(self._open.items(), key=lambda item: -item[1].size):
            if coming < _ENOUGH * group.calls[0].max_prompts:
                coming += group.size
                self._close(generation, group)

    async def _gather(self, generation: Generation, group: _Group) -> dict[Call, Part]:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._request_s, _LONGEST_S)):
                await group.leave.wait()
        self._close(generation, group)
        group.shared = len(group.calls) > 1
        return await self._travel(list(group.calls))

    async def _travel(self, calls: Sequence[Call]) -> dict[Call, Part]:
        """One request for all of `calls`."""
        clock = asyncio.get_running_loop().time
        prompts = [prompt for call in calls for prompt in call.prompts]
        self._in_hand += len(prompts)
        try:
            async with self._place(min(call.priority for call in calls)):
                began = clock()
                for call in calls:
                    call.sent = True
                spans = [call.span for call in calls]
                with tracing.shared("engine request", spans, {"prompts": len(prompts)}, kind="client"):
                    answers, usage = await self._put(prompts, calls[0].generation)
                self._request_s = clock() - began
        finally:
            self._in_hand -= len(prompts)
            self._fill()
        if len(calls) == 1:
            return {calls[0]: (answers, usage)}
        ends = list(accumulate((len(call.prompts) for call in calls), initial=0))
        asked = [(call.prompts, answers[start:end]) for call, (start, end) in zip(calls, pairwise(ends), strict=True)]
        costs = parts_of(usage, asked, calls[0].generation.max_tokens)
        return {call: (own, cost) for call, (_, own), cost in zip(calls, asked, costs, strict=True)}
