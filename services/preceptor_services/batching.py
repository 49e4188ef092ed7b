"""Questions that come one at a time, put to the engine together.

In: single prompts from many callers. Out: each one's answer. A batch leaves when it is full, or a moment after its
first question if no more than one batch is under way; while the engine is busy, questions gather, so the busier it is
the larger the batches.
Guarantees: a caller waits no longer than its deadline; one that goes away takes no other with it.
Waits for: at most two milliseconds of its own, then the engine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from preceptor_client import tracing
from preceptor_client.contract import Usage
from preceptor_services.engine import Answer, Engine, Generation, Prompt, Served
from preceptor_services.engine.cost import parts_of
from preceptor_services.priority import Priority

_WINDOW_S = 0.002
"""Long enough for requests that arrived together to be read, short beside the engine's answer."""
_UNDER_WAY = 2
"""One batch that the engine works on, and one whose way there and back it covers."""

_Kind = tuple[Generation, Served | None]
"""What the questions of a batch have in common: how they are answered, and by what."""


@dataclass(frozen=True)
class _Question:
    prompt: Prompt
    deadline: float
    priority: Priority
    answered: asyncio.Future[tuple[Answer, Usage]]
    span: tracing.Span


class Batcher:
    """Shares engine requests between questions that are answered alike."""

    def __init__(self, engine: Engine, *, max_prompts: int) -> None:
        self._engine = engine
        self._max_prompts = max_prompts
        self._waiting: dict[_Kind, list[_Question]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        prompt: Prompt,
        generation: Generation,
        *,
        deadline: float,
        priority: Priority = Priority.INTERACTIVE,
        served: Served | None = None,
    ) -> tuple[Answer, Usage]:
        """The answer to one prompt, and its share of what its batch cost. `deadline` is in the event loop's time, and
        `served` as in `Engine.ask`.

        A batch goes with the highest priority of its questions.
        """
        with tracing.span("batched question") as span:
            question = _Question(prompt, deadline, priority, asyncio.get_running_loop().create_future(), span)
            return await self._asked(question, (generation, served))

    async def _asked(self, question: _Question, kind: _Kind) -> tuple[Answer, Usage]:
        waiting = self._waiting.setdefault(kind, [])
        waiting.append(question)
        if len(waiting) >= self._max_prompts:
            self._send(kind)
        elif len(waiting) == 1:
            asyncio.get_running_loop().call_later(_WINDOW_S, self._send_if_free, kind)
        try:
            async with asyncio.timeout_at(question.deadline):
                return await question.answered
        except TimeoutError:
            return Answer(error="the deadline passed before the engine answered"), Usage()

    def _send_if_free(self, kind: _Kind) -> None:
        if len(self._under_way) < _UNDER_WAY:
            self._send(kind)

    def _send(self, kind: _Kind) -> None:
        questions = [q for q in self._waiting.pop(kind, []) if not q.answered.done()]
        if questions:
            task = asyncio.create_task(self._answer(questions, *kind))
            self._under_way.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        for kind in list(self._waiting):
            self._send_if_free(kind)

    async def _answer(self, questions: list[_Question], generation: Generation, served: Served | None) -> None:
        with tracing.shared("engine batch", [question.span for question in questions], {"prompts": len(questions)}):
            answers, usage = await self._engine.ask(
                [question.prompt for question in questions],
                generation,
                deadline=max(question.deadline for question in questions),
                max_prompts=self._max_prompts,
                priority=min(question.priority for question in questions),
                served=served,
            )
        asked = [([question.prompt], [answer]) for question, answer in zip(questions, answers, strict=True)]
        costs = parts_of(usage, asked, generation.max_tokens)
        for question, answer, cost in zip(questions, answers, costs, strict=True):
            if not question.answered.done():
                question.answered.set_result((answer, cost))
