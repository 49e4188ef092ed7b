"""What is judged: cohorts of the nano world, and the questions that the judge asks about them.

In: a seed. Out: requests, all different; the teacher's prompts for them, from the judge's own code. Guarantees: the
same seed gives the same requests. Pure, apart from the event loop that the judge needs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from preceptor_client.calls import ALL_AXES, judge_texts_request
from preceptor_client.contract import JudgeRequest, JudgeResponse, Usage
from preceptor_services.engine import Answer, Engine, Generation, Prompt, Served, Teacher
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import JudgingSettings
from preceptor_trainer.nano.text import CLEAN, RAW, Rates, continuation, document, text
from preceptor_trainer.nano.world import World

PREFIX_WORDS, SUFFIX_WORDS = 24, 16
_SENTENCES = 10
_RATES = (CLEAN, RAW, RAW, Rates(false=0.12, unsafe=0.05, garbled=0.10))
"""What candidates are like: from a raw model's rollouts to a nearly perfect one's."""


class Source:
    """Draws requests; each draw advances the generator."""

    def __init__(self, seed: int) -> None:
        self._world, self._dice = World.generate(), random.Random(seed)

    def draw(self, count: int, candidates: int, *, copies: int = 1, **wanted: Any) -> list[JudgeRequest]:
        """`count` requests of `candidates` texts, each text `copies` times over; `wanted` are fields of the request."""
        wanted = {"axes": ALL_AXES, **wanted}
        return [
            judge_texts_request(*self._cohort(candidates // copies, copies)).model_copy(update=wanted)
            for _ in range(count)
        ]

    def _cohort(self, distinct: int, copies: int) -> tuple[str, list[str]]:
        while True:
            doc = document(self._world, self._dice, RAW, _SENTENCES)
            if len(doc) >= PREFIX_WORDS + SUFFIX_WORDS:
                break
        at = self._dice.randint(PREFIX_WORDS, len(doc) - SUFFIX_WORDS)
        texts: dict[str, None] = {}
        while len(texts) < distinct:
            rates = self._dice.choice(_RATES)
            texts[text(continuation(self._world, doc, at, self._dice, rates, SUFFIX_WORDS))] = None
        return text(doc[at - PREFIX_WORDS : at]), list(texts) * copies


@dataclass
class Script:
    """An engine for `Judge` that notes what it is asked and answers from `known`, with the first label else."""

    known: Mapping[str, str] = field(default_factory=dict)
    asked: dict[Generation, list[Prompt]] = field(default_factory=dict)
    served = Served(Teacher("teacher", "scripted"))

    async def ask(self, prompts: Sequence[Prompt], generation: Generation, **_: object) -> tuple[list[Answer], Usage]:
        self.asked.setdefault(generation, []).extend(prompts)
        texts = [self.known.get(prompt.text, generation.labels[0]) for prompt in prompts]
        return [Answer((text,), (None,), (True,), bound=True) for text in texts], Usage(calls=len(prompts))


def judged_by(script: Script, requests: Sequence[JudgeRequest], rubrics: str) -> list[JudgeResponse]:
    """What the judge makes of `requests` with the script for a teacher."""
    judge = Judge(cast(Engine, script), load_rubrics(rubrics), JudgingSettings(), Metrics())

    async def run() -> list[JudgeResponse]:
        return [await judge.judge(request) for request in requests]

    return asyncio.run(run())
