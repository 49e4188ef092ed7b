"""slime: a reward function for `--custom-rm-path`, as slime's docs/en/get_started/customization.md asks.

    custom_rm = reward(Scorer({"quality": 1, "safety": 2}))         # in a module; --custom-rm-path my_reward.custom_rm

In: slime's `args` and one sample, or with `--group-rm` the samples of a prompt, which are one cohort. Out: a reward, or
a list of them; dicts of `score` and the axes with `--reward-key score`. Waits for the judge. Raises `UnjudgedError` for
a text that could not be judged; or the reward is NaN, and `judged`, as `--dynamic-sampling-filter-path`, has slime draw
another group.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from preceptor_client.adapters.hooks import Unjudged, numbers
from preceptor_client.adapters.scoring import Scorer, plain_text


def reward(scorer: Scorer, *, unjudged: Unjudged = "raise") -> Callable[..., Awaitable[Any]]:
    """A `custom_rm`, for one sample and for a group."""

    async def custom_rm(args: Any, sample: Any, **_: Any) -> Any:
        samples = sample if isinstance(sample, list) else [sample]
        found = await scorer.score_texts_async(
            [plain_text(each.prompt) for each in samples],
            [each.response for each in samples],
            [None if each.label is None else str(each.label) for each in samples],
        )
        scores = [numbers(each, scorer.axes, unjudged) for each in found]
        rewards = scores if getattr(args, "reward_key", None) else [each["score"] for each in scores]
        return rewards if isinstance(sample, list) else rewards[0]

    return custom_rm


def judged(args: Any, samples: Sequence[Any], **_: Any) -> bool:
    """Whether every sample of a group has a reward: a filter that drops the group if not."""
    return not any(math.isnan(sample.get_reward_value(args)) for sample in samples)
