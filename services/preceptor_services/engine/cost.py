"""What each of several calls cost that travelled in one request. Pure.

In: the request's cost; each call's prompts and answers. Out: each call's part. Guarantees: the parts sum to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from preceptor_client.contract import Usage
from preceptor_services.engine.protocol import Answer, Prompt


def parts_of(usage: Usage, calls: Sequence[tuple[Sequence[Prompt], Sequence[Answer]]], max_tokens: int) -> list[Usage]:
    """`usage` by call: calls by the number of prompts, what was read by their length, what was written by the
    answers'. Exact where each answer is one token."""
    numbers = shares(usage.calls, [len(prompts) for prompts, _ in calls])
    read = shares(usage.prompt_tokens, [sum(len(prompt.text) for prompt in prompts) for prompts, _ in calls])
    written = shares(usage.completion_tokens, [_most_tokens(answers, max_tokens) for _, answers in calls])
    return [
        Usage(calls=number, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        for number, prompt_tokens, completion_tokens in zip(numbers, read, written, strict=True)
    ]


def _most_tokens(answers: Sequence[Answer], max_tokens: int) -> int:
    """That answers can have cost: a token a character and one that ends each, up to the limit."""
    return sum(min(len(text) + 1, max_tokens) for answer in answers for text in answer.texts)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in parts by weight, as near as whole numbers allow; they sum to it exactly."""
    ends = list(accumulate(weights, initial=0))
    whole = max(ends[-1], 1)
    cuts = [total * end // whole for end in ends[:-1]] + [total]
    return [end - start for start, end in pairwise(cuts)]
