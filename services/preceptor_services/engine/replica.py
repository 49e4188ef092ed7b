"""One server of the teacher: asked over HTTP, and watched.

In: one request's worth of prompts. Out: their answers, or an `EngineError`; whether the server is `ready`.
Guarantees: at most `concurrency` callers have a `place`; ready only after real requests of every kind have been
answered and the pool has admitted it; looked after every few seconds while it is ready, so that a server that went
away, hangs or was restarted is noticed even if nobody asks. One that is lost lets its callers go.

    closed (ready) --- lost: unreachable, no heartbeat, three failures in a row ---> open
       ^                                                                             |  ^
       +--- admitted: every probe was answered --- half open (being probed) <- a pause  |
                                                       +---- not answered: twice as long

Waits for: a free place, and the server, at most `engine.timeout_s` a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from preceptor_client.contract import Constraint, Endpoint, Usage
from preceptor_services.engine.connection import Connection, Transport
from preceptor_services.engine.errors import EngineError
from preceptor_services.engine.gathering import Gathering
from preceptor_services.engine.protocol import (
    Answer,
    Generation,
    Prompt,
    answers_of,
    body_of,
    is_bound,
    path_of,
)
from preceptor_services.metrics import Metrics
from preceptor_services.priority import Priority, PriorityPlaces
from preceptor_services.settings import EngineSettings
from preceptor_services.weights import UNKNOWN, weights_revision

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_STEADY_S = 30.0
"""A server that is lost sooner after it was admitted answers the probes and fails the work: it is left alone for
longer each time."""
_LONGEST_REST_S = 15.0
_FAILURES_IN_A_ROW = 3
"""So many broken or late replies without a good one between are the server's fault, not a prompt's."""
_TOO_MANY_REQUESTS = 429

Circuit = Literal["closed", "half_open", "open"]


@dataclass(frozen=True)
class Teacher:
    """Who answers: the model's name and its weights."""

    name: str
    revision: str


@dataclass(frozen=True)
class Served:
    """What a server has loaded. `root` tells weights apart whose revision is unknown; else it is empty."""

    teacher: Teacher
    root: str = ""

    def __str__(self) -> str:
        root = f" ({self.root})" if self.root else ""
        return f"{self.teacher.name}, revision {self.teacher.revision}{root}"


class Replica:
    """A connection pool to one server. `changed` is called whenever `ready` may have."""

    def __init__(
        self,
        url: str,
        settings: EngineSettings,
        metrics: Metrics,
        changed: Callable[[], None],
        transport: Transport | None = None,
    ) -> None:
        self._connection = Connection(url, settings, metrics, transport)
        self.url = self._connection.url
        self.name = self._connection.name
        self.trouble: str | None = f"the engine at {self.url} has not answered yet"
        """Why it is not ready; None when it is."""
        self.answered_at = float("-inf")
        """When it last gave a good answer, in the event loop's time."""
        self.served: Served | None = None
        """What it had loaded when it was admitted last; None before."""
        self._settings = settings
        self._metrics = metrics
        self._changed = changed
        self._model = settings.model or ""
        self._roots: dict[str, str | None] = {}
        self._label_tokens: dict[str, int] = {}
        self._unsupported: set[tuple[Endpoint, Constraint]] = set()
        self._failures = 0
        self._stirred = asyncio.Event()
        self._places = PriorityPlaces(settings.concurrency)
        self._visits: set[asyncio.Timeout] = set()
        self.gathering = Gathering(self.place, self.ask)
        """By which callers ask; `ask` is one request."""
        metrics.engine_ready.labels(self.name).set(0)
        self._switch("open")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    @property
    def ready(self) -> bool:
        """Whether the server has answered real requests, was admitted, and has not been lost since."""
        return self.trouble is None

    @property
    def load(self) -> int:
        """Requests in flight and waiting."""
        return self._places.load

    @asynccontextmanager
    async def place(self, priority: Priority) -> AsyncIterator[None]:
        """One of its places. Raises EngineError when the replica is abandoned before the block is through."""
        try:
            async with asyncio.timeout(None) as visit:
                self._visits.add(visit)
                try:
                    async with self._places.held(priority):
                        if not self.ready:
                            raise EngineError("unreachable", f"the engine at {self.url} was lost: {self.trouble}")
                        yield
                finally:
                    self._visits.discard(visit)
        except TimeoutError:
            raise EngineError("unreachable", f"the engine at {self.url} was lost: {self.trouble}") from None

    def abandon(self) -> None:
        """Send away whoever waits for it or for its answer."""
        now = asyncio.get_running_loop().time()
        while self._visits:
            self._visits.pop().reschedule(now)

    def admit(self, served: Served) -> None:
        """It takes part from now on."""
        self.served, self.trouble, self._failures = served, None, 0
        self._metrics.engine_ready.labels(self.name).set(1)
        self._switch("closed")
        self._changed()

    def lose(self, error: EngineError) -> None:
        """It takes no part until it is admitted again. Nobody waits for a server that does not answer."""
        if not self.ready:
            return
        log.warning("engine lost, its circuit is open: %s", error)
        self.trouble = str(error)
        self._metrics.engine_ready.labels(self.name).set(0)
        self._switch("open")
        if error.kind in ("unreachable", "timeout"):
            self.abandon()
        self.stir()
        self._changed()

    def _switch(self, circuit: Circuit) -> None:
        self.circuit: Circuit = circuit
        self._metrics.engine_circuit.labels(self.name).state(circuit)

    def stir(self) -> None:
        """See at once whether it is ready."""
        self._stirred.set()

    async def watch(self, probes: Sequence[Generation], admit: Callable[[Replica, Served], None]) -> None:
        """Keeps `ready` true to life, forever: asks until the server answers and `admit` takes it, then until it is
        lost. `admit` raises EngineError if the server must stay out."""
        clock = asyncio.get_running_loop().time
        pause_s, rest_s = _FIRST_PAUSE_S, _FIRST_PAUSE_S
        while True:
            self._switch("half_open")
            try:
                admit(self, await self.prepare(probes))
            except EngineError as error:
                self._switch("open")
                if self.trouble != str(error):
                    log.warning("engine not ready, its circuit stays open: %s", error)
                self.trouble = str(error)
                await self._rest(error.pause_s or pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                log.info("engine ready, its circuit is closed: %s answers as %s", self.url, self.served)
                admitted_at = clock()
                await self._look_after()
                pause_s = _FIRST_PAUSE_S
                if clock() - admitted_at > _STEADY_S:
                    rest_s = _FIRST_PAUSE_S
                await asyncio.sleep(rest_s)
                rest_s = min(2 * rest_s, _LONGEST_REST_S)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), seconds)
            self._stirred.clear()

    async def _look_after(self) -> None:
        """Returns when the server is lost: it did not answer, or not as before."""
        missed = 0
        while self.ready:
            await self._rest(self._settings.heartbeat_s)
            try:
                if self.ready and await self._list() != self._roots:
                    self.lose(EngineError("unreachable", f"the engine at {self.url} serves other models than before"))
                missed = 0
            except EngineError as error:
                missed += 1
                if error.kind == "unreachable" or missed == _FAILURES_IN_A_ROW:
                    self.lose(error)

    async def prepare(self, probes: Sequence[Generation]) -> Served:
        """Learn what is served, and put each kind of request in `probes` for real. Raises EngineError if one fails.

        A way of constraining that the server refuses is given up: answers are then read as they come.
        """
        self._label_tokens.clear()
        self._unsupported.clear()
        self._roots = await self._list()
        model = self._settings.model or next(iter(self._roots), "")
        if model not in self._roots:
            raise EngineError(
                "rejected",
                f"engine.model: {model!r} is not served at {self.url}, which has {', '.join(self._roots) or 'nothing'}",
            )
        self._model = model
        for probe in dict.fromkeys(replace(probe, n=1, temperature=0.0, top_p=1.0, seed=None) for probe in probes):
            await self._probe(replace(probe, max_tokens=1))
        root = self._roots[model]
        revision = self._settings.revision
        if revision is None:
            revision = await asyncio.to_thread(weights_revision, root)
        return Served(Teacher(model, revision), root=(root or "") if revision == UNKNOWN else "")

    async def _list(self) -> dict[str, str | None]:
        """The models served, and where each was loaded from."""
        listed = await self._connection.call("GET", "/v1/models", patience_s=self._settings.heartbeat_timeout_s)
        try:
            return {model["id"]: model.get("root") for model in listed["data"]}
        except (KeyError, TypeError, AttributeError):
            raise EngineError("broken", f"{self.url}/v1/models does not answer as the protocol says") from None

    async def _probe(self, probe: Generation) -> None:
        if probe.constraint == "tokens":
            try:
                await self._find_label_tokens(probe.labels)
            except EngineError as error:
                if error.kind != "rejected":
                    raise
                log.warning("labels cannot bind decoding, answers are read as they come: %s", error)
        try:
            await self.ask([Prompt("ready")], probe, thought_tokens=1)
        except EngineError as error:
            if error.kind != "rejected" or self._constraint(probe) == "none":
                raise
            await self.ask([Prompt("ready")], replace(probe, constraint="none"), thought_tokens=1)
            log.warning(
                "constraint %r is not to be had of this engine, answers are read as they come: %s",
                probe.constraint,
                error,
            )
            self._unsupported.add((probe.endpoint, probe.constraint))

    async def _find_label_tokens(self, labels: Sequence[str]) -> None:
        """Ask the server for the labels' token ids. Raises EngineError (`rejected`) if a label is not one token."""
        for label in labels:
            body = {"model": self._model, "prompt": label, "add_special_tokens": False}
            match await self._connection.call("POST", "/tokenize", body):
                case {"tokens": [int(token)]}:
                    self._label_tokens[label] = token
                case {"tokens": [*tokens]} if len(tokens) != 1:
                    raise EngineError("rejected", f"the label {label!r} is {len(tokens)} tokens, not one")
                case _:
                    raise EngineError("rejected", f"{self.url}/tokenize does not answer with token ids")

    def _constraint(self, generation: Generation) -> Constraint:
        if (generation.endpoint, generation.constraint) in self._unsupported:
            return "none"
        return generation.constraint

    async def ask(
        self, prompts: Sequence[Prompt], generation: Generation, *, thought_tokens: int | None = None
    ) -> tuple[list[Answer], Usage]:
        """One request; `thought_tokens` instead of `engine.reasoning_tokens`. Raises EngineError."""
        body = body_of(
            prompts,
            generation,
            model=self._model,
            constraint=self._constraint(generation),
            label_tokens=self._label_tokens,
            reasoning=self._settings.reasoning,
            thought_tokens=self._settings.reasoning_tokens if thought_tokens is None else thought_tokens,
        )
        try:
            reply = await self._connection.call("POST", path_of(generation.endpoint), body)
            answers, cost = answers_of(
                reply,
                generation.endpoint,
                len(prompts),
                generation.n,
                reasoning=self._settings.reasoning,
                bound=is_bound(body),
            )
        except EngineError as error:
            self.failed(error)
            raise
        self._failures = 0
        self.answered_at = asyncio.get_running_loop().time()
        return answers, cost

    def failed(self, error: EngineError) -> None:
        """Count a failure; one too many in a row loses the server."""
        if error.kind != "unreachable" and not error.of_the_prompt and error.status != _TOO_MANY_REQUESTS:
            self._failures += 1
            if self.ready and self._failures >= _FAILURES_IN_A_ROW:
                # Not in the server's own words, which may quote a caller's texts: anyone may ask for the trouble.
                how = error.kind if error.status is None else f"{error.kind}, status {error.status}"
                trouble = f"the engine at {self.url} failed {self._failures} times in a row: {how}"
                self.lose(EngineError(error.kind, trouble, status=error.status))
