"""OpenRLHF: a reward function for `--reward.remote_url reward_func.py`, as its README's "Custom Reward Function" asks.

    reward_func = reward(Scorer("safety"), torch.tensor)            # in the file that the option names

In: `queries` (prompt and response), `prompts`, `labels`. Out: a dict of `rewards`, `scores` and `extra_logs`, tensors
made by the function given. Waits for the judge. Raises `UnjudgedError` for a text that could not be judged: OpenRLHF
logs it, misses the reward later and stops. See `hooks` for the other way, with `--algo.dynamic_filtering_enable`.
Raises `ValueError` for a query that does not hold its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from preceptor_client.adapters.hooks import Unjudged, numbers
from preceptor_client.adapters.scoring import Scorer


def reward(
    scorer: Scorer,
    tensor: Callable[[list[float]], Any],
    *,
    end_tokens: Sequence[str] = (),
    unjudged: Unjudged = "raise",
) -> Callable[..., dict[str, Any]]:
    """A `reward_func`. `tensor` makes a tensor of numbers; `end_tokens` (`<|im_end|>`, ...) are cut off responses."""

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str | None], **_: Any
    ) -> dict[str, Any]:
        texts = [response_of(query, prompt, end_tokens) for query, prompt in zip(queries, prompts, strict=True)]
        references = [label or None for label in labels]  # OpenRLHF has an empty label where the data set has none
        found = [numbers(each, scorer.axes, unjudged) for each in scorer.score_texts(prompts, texts, references)]
        rewards = [each["score"] for each in found]
        return {
            "rewards": tensor(rewards),
            "scores": tensor(rewards),
            "extra_logs": {axis: tensor([each[axis] for each in found]) for axis in scorer.axes},
        }

    return reward_func


def response_of(query: str, prompt: str, end_tokens: Sequence[str] = ()) -> str:
    """What `query` has after `prompt`: a tokenizer may have put a token of its own before it."""
    _, found, response = query.partition(prompt)
    if not found:
        raise ValueError(f"the query does not hold its prompt, which begins {prompt[:80]!r}: was it cut to fit?")
    for token in end_tokens:
        response = response.removesuffix(token)
    return response
