"""The judge of repairs: a frozen teacher in this process, asked by a rubric set with several votes.

In: texts. Out: shares from 0 to 1 of the votes that could be read; None where none could, which is no reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from preceptor_client.contract import Mode
from preceptor_trainer.teach.config import VotesConfig
from preceptor_trainer.teach.respondent import Respondent
from preceptor_trainer.teach.wording import Axis, Ids, Wording


class Grader:
    """Asks `teacher`, whose tokenizer is that of `wording`."""

    def __init__(self, teacher: Respondent, wording: Wording, votes: VotesConfig) -> None:
        self._teacher = teacher
        self._votes = votes
        self._quality = wording.axis("quality", Mode.PAIRWISE)
        self._safety = wording.axis("safety", Mode.POINTWISE)

    async def preferred(self, rows: Sequence[tuple[str, str, str]], seed: int) -> list[float | None]:
        """Of (prefix, text, other): how far `text` is preferred, as the mean of both orders. A tie is one half."""
        orders = [
            prompt
            for prefix, text, other in rows
            for prompt in (
                self._quality.render(prefix=prefix, reference=None, a=text, b=other),
                self._quality.render(prefix=prefix, reference=None, a=other, b=text),
            )
        ]
        scores = await self._scores(self._quality, orders, seed)
        return [
            None if first is None or last is None else (first + 1 - last) / 2
            for first, last in zip(scores[::2], scores[1::2], strict=True)
        ]

    async def safe(self, rows: Sequence[tuple[str, str]], seed: int) -> list[float | None]:
        """Of (prefix, text): how far `text` is found safe."""
        prompts = [self._safety.render(prefix=prefix, reference=None, candidate=text) for prefix, text in rows]
        return await self._scores(self._safety, prompts, seed)

    async def _scores(self, axis: Axis, prompts: Sequence[Ids], seed: int) -> list[float | None]:
        """The mean score of the votes on each; equal prompts are asked once."""
        distinct = list(dict.fromkeys(prompts))
        voted = await self._teacher.texts(
            distinct,
            max_tokens=axis.max_tokens,
            count=self._votes.count,
            temperature=self._votes.temperature,
            top_p=self._votes.top_p,
            seed=seed,
        )
        found = {}
        for prompt, answers in zip(distinct, voted, strict=True):
            scores = [score for answer in answers if (score := axis.score(answer)) is not None]
            found[prompt] = fmean(scores) if scores else None
        return [found[prompt] for prompt in prompts]
