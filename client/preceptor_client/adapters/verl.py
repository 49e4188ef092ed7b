"""verl: a reward function for `custom_reward_function.path`, as verl's docs/preparation/reward_function.rst asks.

    compute_score = async_reward(Scorer("safety"))                  # in the file that `path` names

In: `data_source`, `solution_str`, `ground_truth`, `extra_info`, one text a call; the batch reward manager hands over
lists of them (`data_sources`, ...). The prompt is looked up in `extra_info`, since verl does not pass it. Out: a dict
with `score` and each axis's own score, which verl logs. Waits for the judge. Raises `UnjudgedError` for a text that
could not be judged: verl's v1 trainer leaves that trajectory out, older ones stop. NaN is no way out here: verl's
filter of groups lets it through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from preceptor_client.adapters.hooks import numbers
from preceptor_client.adapters.scoring import Scorer, plain_text

Scores = dict[str, float]


def reward(scorer: Scorer, *, prompt: str = "question") -> Callable[..., Scores]:
    """A synchronous `compute_score`. `prompt` is the key of `extra_info` that holds the prompt."""

    def compute_score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> Scores:
        found = scorer.score_texts([_prompt(extra_info, prompt)], [solution_str], [_reference(ground_truth)])
        return numbers(found[0], scorer.axes)

    return compute_score


def async_reward(scorer: Scorer, *, prompt: str = "question") -> Callable[..., Awaitable[Scores]]:
    """As `reward`, for verl's reward loop, which then judges many texts at once."""

    async def compute_score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> Scores:
        found = await scorer.score_texts_async(
            [_prompt(extra_info, prompt)], [solution_str], [_reference(ground_truth)]
        )
        return numbers(found[0], scorer.axes)

    return compute_score


def batch_reward(scorer: Scorer, *, prompt: str = "question") -> Callable[..., list[Scores]]:
    """For the reward manager `batch`: the solutions of a prompt are one cohort, so axes that compare have a say."""

    def compute_score(
        data_sources: Sequence[str],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any]],
        **_: Any,
    ) -> list[Scores]:
        prompts = [_prompt(extra_info, prompt) for extra_info in extra_infos]
        references = [_reference(ground_truth) for ground_truth in ground_truths]
        found = scorer.score_texts(prompts, solution_strs, references)
        return [numbers(each, scorer.axes) for each in found]

    return compute_score


def _prompt(extra_info: Mapping[str, Any] | None, key: str) -> str:
    if extra_info is None or key not in extra_info:
        found = ", ".join(extra_info or {}) or "nothing"
        raise KeyError(f"extra_info has no {key!r}, only {found}: store the prompt there or name its key with prompt=")
    return plain_text(extra_info[key])


def _reference(ground_truth: Any) -> str | None:
    return None if ground_truth is None else str(ground_truth)
