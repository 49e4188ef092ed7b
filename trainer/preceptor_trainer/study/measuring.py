"""What is measured of a policy: by the oracle, by two judges, and of its language.

In: what the policy and the base model wrote for the same held-out windows, and the judges' addresses. Out: name ->
`Estimate` over the windows. The judge that trained it is one of the judges and never the only one: the oracle knows the
world, and the second judge was trained by itself, on other examples. Waits for the judges. Raises `PreceptorError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from preceptor_client.settings import ClientSettings
from preceptor_trainer.demo.training import Continued
from preceptor_trainer.evaluation.evaluate import ask
from preceptor_trainer.evaluation.generation import Generation
from preceptor_trainer.evaluation.judged import Outcome, pairs, request
from preceptor_trainer.evaluation.nano import AXES, Comparison
from preceptor_trainer.evaluation.policy import distinct, entropy, suffix_nll
from preceptor_trainer.evaluation.rubrics import Asked
from preceptor_trainer.evaluation.statistics import Estimate, mean

WIN_RATES = ("quality_wins", "wins")
_AT_ONCE = 8
"""Cohorts at a judge."""


def measure(policy: Continued, base: Continued, judges: Mapping[str, str], judged: int) -> dict[str, Estimate]:
    """All figures of `policy`. `judges` are URLs by name; they see the first `judged` windows, and so that they can be
    compared with it, `oracle_...` has the oracle's win rates on those.
    """
    ours, theirs = policy.generations[:judged], base.generations[:judged]
    win_rates = {
        "oracle": by_oracle(ours, theirs),
        **{name: by_judge(url, ours, theirs) for name, url in judges.items()},
    }
    return {
        **by_oracle(policy.generations, base.generations),
        **of_language(policy),
        **{f"{who}_{what}": rates[what] for who, rates in win_rates.items() for what in WIN_RATES if what in rates},
    }


def by_oracle(policy: list[Generation], base: list[Generation]) -> dict[str, Estimate]:
    """The axes, repetition, and win rates over the base model on quality and on the sum of the axes."""
    comparison = Comparison.by_oracle({"policy": policy, "base": base})
    return {
        "quality_wins": comparison.wins("policy", "base", "quality"),
        "wins": comparison.wins("policy", "base"),
        **{axis: comparison.axis("policy", axis) for axis in (*AXES, "repetition")},
    }


def of_language(policy: Continued) -> dict[str, Estimate]:
    """NLL of the held-out suffixes, entropy, share of different pairs of words, and words written."""
    texts = [generation.text for generation in policy.generations]
    different = distinct(texts, 2)
    model, codec, windows, control = policy.model, policy.codec, policy.windows, policy.control
    entropies = entropy(model, codec, windows, policy.generations, control)
    return {
        "nll": mean(suffix_nll(model, codec, windows, control)),
        # A policy that writes nothing at all has nothing left to decide.
        "entropy": mean(entropies or [0.0]),
        "distinct_2": Estimate(different, different, different),
        "length": mean([len(text.split()) for text in texts]),
    }


def by_judge(url: str, policy: list[Generation], base: list[Generation]) -> dict[str, Estimate]:
    """The same two win rates by the judge service at `url`. Empty where it has no score."""
    compared = enumerate(pairs(policy, base))
    requests = [request(number, pair, Asked(AXES)) for number, pair in compared]
    responses = asyncio.run(ask(ClientSettings(judge_url=url), requests, _AT_ONCE, answered=lambda: None))
    outcome = Outcome(responses, AXES)
    rates = {"quality_wins": outcome.axis("quality").win_rate, "wins": outcome.overall.win_rate}
    return {name: rate for name, rate in rates.items() if rate}
