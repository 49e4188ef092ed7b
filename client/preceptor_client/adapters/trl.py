"""TRL: reward functions for `GRPOTrainer` and its kin, and judges as the removed `trl.judges` had them.

    trainer = GRPOTrainer(model, reward_funcs=Reward(Scorer({"quality": 1, "safety": 2})), ...)

In: what TRL 1.x hands to a reward function: prompts and completions, plain or conversational, and the data set's
columns. Out: a reward per completion; None where the judge could not say, which TRL leaves out of the group's baseline
and gives no advantage. All completions of a prompt that one process has are one cohort. Logged with the trainer's
metrics: `judge/<axis>`, the mean score, and `judge/unjudged`, the share without a reward. Waits for the judge.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor_client.adapters.scoring import Group, Scored, Scorer, plain_text

log = logging.getLogger(__name__)

UNDECIDED = -1


class _Named:
    """What both reward functions are made of. `reference` is the data set's column that holds it, if there is one."""

    def __init__(self, scorer: Scorer | None = None, *, reference: str = "reference", name: str = "preceptor") -> None:
        self._scorer = scorer or Scorer()
        self._reference = reference
        self.__name__ = name
        """TRL logs the rewards under it."""

    def _texts(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> tuple[list[str], list[str], list[str | None]]:
        references = columns.get(self._reference) or [None] * len(prompts)
        return (
            [plain_text(prompt) for prompt in prompts],
            [plain_text(completion) for completion in completions],
            [None if reference is None else plain_text(reference) for reference in references],
        )


class Reward(_Named):
    """A reward function."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The rewards, in order."""
        return _rewards(self._scorer.score_texts(*self._texts(prompts, completions, columns)), columns)


class AsyncReward(_Named):
    """A reward function that the trainer awaits together with its other asynchronous ones."""

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The rewards, in order."""
        return _rewards(await self._scorer.score_texts_async(*self._texts(prompts, completions, columns)), columns)


class PairwiseJudge:
    """The interface of `BasePairwiseJudge`: which of two completions is better."""

    def __init__(self, scorer: Scorer | None = None) -> None:
        self._scorer = scorer or Scorer()

    def judge(
        self, prompts: Sequence[str], completions: Sequence[Sequence[str]], shuffle_order: bool = True
    ) -> list[int]:
        """For each prompt 0 or 1, the place of the better completion; -1 for a tie or if it could not be judged.

        `shuffle_order` changes nothing: the service shows every pair in both orders, unless the scorer says otherwise.
        """
        return [
            UNDECIDED
            if first.score is None or second.score is None or first.score == second.score
            else int(second.score > first.score)
            for first, second in self._scorer.score(_groups(prompts, completions, 2))
        ]


class RankJudge:
    """The interface of `BaseRankJudge`: completions from best to worst."""

    def __init__(self, scorer: Scorer | None = None) -> None:
        self._scorer = scorer or Scorer()

    def judge(
        self, prompts: Sequence[str], completions: Sequence[Sequence[str]], shuffle_order: bool = True
    ) -> list[list[int]]:
        """For each prompt the places of its completions, best first, ties in their order; only -1 if one of them could
        not be judged."""
        ranks = []
        for found in self._scorer.score(_groups(prompts, completions)):
            scores = [each.score for each in found]
            known = [score for score in scores if score is not None]
            best_first = sorted(range(len(known)), key=lambda place: -known[place])
            ranks.append(best_first if len(known) == len(scores) else [UNDECIDED] * len(scores))
        return ranks


class BinaryJudge:
    """The interface of `BaseBinaryJudge`: whether a completion passes, a score of at least `threshold`. The axis should
    be one that looks at a single text."""

    def __init__(self, scorer: Scorer, *, threshold: float = 0.5) -> None:
        self._scorer = scorer
        self._threshold = threshold

    def judge(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        gold_completions: Sequence[str] | None = None,
        shuffle_order: bool = True,
    ) -> list[int]:
        """For each completion 1 or 0; -1 if it could not be judged. `gold_completions` are the references."""
        found = self._scorer.score_texts(prompts, completions, gold_completions or [None] * len(prompts))
        return [UNDECIDED if each.score is None else int(each.score >= self._threshold) for each in found]


def _rewards(found: Sequence[Scored], columns: Mapping[str, Any]) -> list[float | None]:
    """The rewards; the trainer's log gets the axes."""
    unjudged = [each.reason for each in found if each.score is None]
    if unjudged:
        log.warning("%d of %d completions without a reward: %s", len(unjudged), len(found), unjudged[0])
    if log_metric := columns.get("log_metric"):
        log_metric("judge/unjudged", len(unjudged) / max(1, len(found)))
        for axis in dict.fromkeys(axis for each in found for axis in each.axes):
            scores = [each.axes[axis] for each in found if axis in each.axes]
            log_metric(f"judge/{axis}", sum(scores) / len(scores))
    return [each.score for each in found]


def _groups(prompts: Sequence[str], completions: Sequence[Sequence[str]], size: int | None = None) -> list[Group]:
    for texts in completions:
        if size is not None and len(texts) != size:
            raise ValueError(f"completions: give exactly {size} per prompt (found: {len(texts)})")
    return [
        Group(plain_text(prompt), tuple(plain_text(text) for text in texts))
        for prompt, texts in zip(prompts, completions, strict=True)
    ]
