"""The teacher as the services see it: one engine over any number of servers that speak the OpenAI protocol.

In: prompts, how to sample, and the cohort they belong to. Out: one `Answer` per prompt, in order, and what they cost.
`ask` never raises for a call that failed: the prompts it carried come back as answers with an `error`, so that one bad
call cannot be mistaken for a verdict or take its neighbours with it; whether it was the engine's failure or the
prompt's is told apart. Many completion prompts travel in one request; chat takes one prompt a request.
Guarantees: calls of one `affinity` go to one replica, where their shared prefix is cached, for as long as it is ready;
a replica that is lost leaves at once, its calls go to the next, or fail if there is none, and it returns when it
answers again. All replicas
that take part serve the same model and weights, and one cohort is answered by no other. A request is repeated only
where that can help (no connection, 429, 5xx) and only until the deadline; a prompt that the server refuses is isolated
from those sent with it. At most `concurrency` requests are in flight on a replica; the more urgent go first.
Waits for: a free place among the requests in flight, and the server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from preceptor_client import tracing
from preceptor_client.contract import Usage
from preceptor_services.engine.connection import Transport
from preceptor_services.engine.errors import REPEATABLE, EngineError
from preceptor_services.engine.gathering import Call
from preceptor_services.engine.hashing import ranked
from preceptor_services.engine.protocol import Answer, Generation, Prompt
from preceptor_services.engine.replica import Replica, Served
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority
from preceptor_services.settings import EngineSettings, Reasoning

_FIRST_PAUSE_S = 0.2
_KEPT_OUT_PAUSE_S = 15.0
"""Reading the weights again costs seconds, and only a restart changes them."""


@dataclass(eq=False)
class _Call(Call):
    """At most one request's worth of prompts on its way."""

    deadline: float
    affinity: str
    served: Served | None
    """The only weights that may answer."""


class Engine:
    """Connection pools to the replicas. Use as `async with Engine(...) as engine`, with `watch` running beside."""

    def __init__(self, settings: EngineSettings, metrics: Metrics, transport: Transport | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._replicas = [Replica(url, settings, metrics, self._changed, transport) for url in settings.urls]
        self._by_name = {replica.name: replica for replica in self._replicas}
        self._served: Served | None = None
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for replica in self._replicas:
            await replica.aclose()

    @property
    def ready(self) -> bool:
        """Whether a replica is ready: it has answered a real request, and has not been lost since."""
        return self._ready.is_set()

    @property
    def known(self) -> bool:
        """Whether the engine has ever been ready."""
        return self._served is not None

    @property
    def served(self) -> Served:
        """What answers. Raises EngineError before the engine was ready for the first time."""
        if self._served is None:
            raise EngineError("unreachable", f"the engine is not ready: {self.trouble}")
        return self._served

    @property
    def thinking(self) -> tuple[Reasoning, int]:
        """How the teacher thinks before it answers a chat, and with how much room."""
        reasoning = self._settings.reasoning
        return reasoning, 0 if reasoning == "none" else self._settings.reasoning_tokens

    @property
    def trouble(self) -> str | None:
        """What keeps replicas out; None when all are ready."""
        troubles = (
            f"{replica.trouble} (circuit {replica.circuit.replace('_', ' ')})"
            for replica in self._replicas
            if replica.trouble is not None
        )
        return "; ".join(troubles) or None

    async def wait_ready(self) -> None:
        """Returns when the engine is ready, at once if it is."""
        await self._ready.wait()

    async def watch(self, probes: Sequence[Generation]) -> None:
        """Keeps `ready` true to life, forever."""
        async with asyncio.TaskGroup() as watches:
            for replica in self._replicas:
                watches.create_task(replica.watch(probes, self._admit))

    async def prepare(self, probes: Sequence[Generation]) -> None:
        """Try every replica once. Raises EngineError if one of them is not ready then."""
        for replica in self._replicas:
            self._admit(replica, await replica.prepare(probes))

    def _admit(self, replica: Replica, served: Served) -> None:
        """Let a replica take part. Raises EngineError if others that do serve something else."""
        if self._served != served and (others := [other for other in self._replicas if other.ready]):
            raise EngineError(
                "rejected",
                f"the engine at {replica.url} is kept out: it serves {served}, {others[0].url} {self._served}. "
                "Load the same weights; if they are the same, set engine.revision",
                pause_s=_KEPT_OUT_PAUSE_S,
            )
        self._served = served
        replica.admit(served)

    def _changed(self) -> None:
        """A replica came or went."""
        if any(replica.ready for replica in self._replicas):
            self._ready.set()
        else:
            self._ready.clear()
        for replica in self._replicas:
            if not self.ready:
                replica.stir()  # one that was kept out may be wanted now
            elif not replica.ready:
                replica.abandon()  # others take its calls

    async def ask(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        *,
        deadline: float,
        max_prompts: int,
        affinity: str = "",
        priority: Priority = Priority.INTERACTIVE,
        served: Served | None = None,
    ) -> tuple[list[Answer], Usage]:
        """An answer for every prompt, in order. Completion prompts travel `max_prompts` to a request.

        Calls of one `affinity` (a cohort's id) share a replica; those without one go where least is to be done. Nothing
        but `served` answers, what is served now if it is left out. `deadline` is in the event loop's time: what is open
        then comes back with an error.
        """
        size = max_prompts if generation.endpoint == "completion" else 1
        chunks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        served = served or self._served
        return await self._all(
            [
                _Call(chunk, generation, priority, size, deadline=deadline, affinity=affinity, served=served)
                for chunk in chunks
            ]
        )

    async def _all(self, calls: Sequence[_Call]) -> tuple[list[Answer], Usage]:
        if len(calls) == 1:  # as most are: no task for it
            return await self._answer(calls[0])
        parts = await asyncio.gather(*map(self._answer, calls))
        return [answer for part, _ in parts for answer in part], sum((usage for _, usage in parts), Usage())

    async def _answer(self, call: _Call) -> tuple[list[Answer], Usage]:
        with tracing.span("engine call", {"prompts": len(call.prompts)}) as call.span:
            return await self._outcome(call)

    async def _outcome(self, call: _Call) -> tuple[list[Answer], Usage]:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(call.deadline):
                answers, cost = await self._repeat(call)
        except TimeoutError:
            error = EngineError("timeout", "the deadline passed before the engine answered")
        except EngineError as failure:
            if failure.of_the_prompt and len(call.prompts) > 1:
                # One prompt may have caused it (too long, say): the others must not suffer for it.
                middle = len(call.prompts) // 2
                halves = (call.prompts[:middle], call.prompts[middle:])
                return await self._all([replace(call, prompts=half, sent=False) for half in halves])
            error = failure
        else:
            self._metrics.count_usage(cost)
            return answers, cost
        cost = Usage(calls=len(call.prompts) if call.sent else 0)
        self._metrics.engine_failures.labels(error.kind).inc()
        call.span.fail(error.kind)
        self._metrics.count_usage(cost)
        lost = self._silent_since(began) if error.kind == "timeout" else not error.of_the_prompt
        return [Answer(error=str(error), lost=lost)] * len(call.prompts), cost

    def _silent_since(self, began: float) -> bool:
        """Whether a call that ran out of time since `began` met an engine that hangs, not one that has much to do: it
        has answered nobody for half of that time."""
        now = asyncio.get_running_loop().time()
        return not self.ready or max(replica.answered_at for replica in self._replicas) < (began + now) / 2

    async def _repeat(self, call: _Call) -> tuple[list[Answer], Usage]:
        """The call put to the replicas in turn, again where that can help."""
        pause_s = _FIRST_PAUSE_S
        for attempt in range(self._settings.retries + 1):
            last = attempt == self._settings.retries
            try:
                return await self._try_replicas(call, last=last)
            except EngineError as error:
                if error.kind not in REPEATABLE or last:
                    raise
                self._metrics.engine_retries.inc()
                await asyncio.sleep(error.pause_s or pause_s * random.uniform(0.5, 1.0))
                pause_s *= 2
        raise AssertionError("retries is never negative")

    async def _try_replicas(self, call: _Call, *, last: bool) -> tuple[list[Answer], Usage]:
        """The answer of the first replica that has one.

        The only replica that is ready is not given up for one lost connection, but with the `last` attempt.
        """
        failure = EngineError(
            "unreachable",
            f"the engine is not ready: {self.trouble}"
            if self._served == call.served
            else f"the teacher changed from {call.served} to {self._served} before it answered",
        )
        for place, replica in enumerate(self._order(call)):
            try:
                if not replica.ready:
                    continue  # lost while another was asked
                if place:
                    self._metrics.engine_switches.inc()
                return await replica.gathering.ask(call)
            except EngineError as error:
                if error.kind == "unreachable" and (last or self._others_are_ready(replica)):
                    replica.lose(error)
                if error.kind not in REPEATABLE:
                    raise
                failure = error
        raise failure

    def _order(self, call: _Call) -> list[Replica]:
        """The replicas that may answer, best first."""
        ready = [replica for replica in self._replicas if replica.ready and replica.served == call.served]
        if not call.affinity:
            return sorted(ready, key=lambda replica: replica.load)
        return [self._by_name[name] for name in ranked([replica.name for replica in ready], call.affinity)]

    def _others_are_ready(self, replica: Replica) -> bool:
        return any(other.ready for other in self._replicas if other is not replica)
