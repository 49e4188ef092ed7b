"""What the figures of the judge benchmark come from: rounds and responses in, numbers out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median, quantiles
from typing import Any

from benchmarks.judge_parts.rounds import Round
from preceptor_client.contract import Axis, JudgeResponse


def rates(rounds: Sequence[Round], cohorts: int, verdicts: int, questions: int) -> dict[str, Any]:
    """Medians over `rounds` of so many cohorts, verdicts and questions each."""
    seconds = median(one.seconds for one in rounds)
    return {
        "cohorts_per_s": cohorts / seconds,
        "verdicts_per_s": verdicts / seconds,
        "questions_per_s": questions / seconds,
        "cpu_s_per_1000_verdicts": {
            name: median(one.cpu_s[name] for one in rounds) / verdicts * 1000 for name in rounds[0].cpu_s
        },
        "latency_s": latency([each for one in rounds for each in one.latencies_s]),
        "prompt_tokens_cached": median(one.tokens_cached for one in rounds),
    }


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Of one request."""
    cuts = quantiles(seconds, n=20)
    return {"p50": median(seconds), "p95": cuts[18]}


def ratio(over: Sequence[Round], under: Sequence[Round]) -> float:
    """The median over the rounds of how many times longer `over` took than `under` in the same round."""
    return median(one.seconds / other.seconds for one, other in zip(over, under, strict=True))


def same_scores(responses: Sequence[JudgeResponse], others: Sequence[JudgeResponse]) -> float:
    """Share of the verdicts whose scores are equal."""
    pairs = [
        one.score == other.score
        for response, again in zip(responses, others, strict=True)
        for one, other in zip(response.verdicts, again.verdicts, strict=True)
    ]
    return sum(pairs) / len(pairs)


def usage(responses: Sequence[JudgeResponse]) -> dict[str, float]:
    """Means per cohort of what the service says that it cost."""
    return {
        "calls": fmean(response.usage.calls for response in responses),
        "cached": fmean(response.usage.cached for response in responses),
        "prompt_tokens": fmean(response.usage.prompt_tokens for response in responses),
        "completion_tokens": fmean(response.usage.completion_tokens for response in responses),
    }


def agreement(found: Sequence[JudgeResponse], by_all_pairs: Sequence[JudgeResponse]) -> dict[str, float]:
    """How often the candidate of highest, and of lowest, quality is one that all pairs put there, equals included."""
    tops, bottoms = [], []
    for one, other in zip(found, by_all_pairs, strict=True):
        mine, theirs = quality(one), quality(other)
        tops.append(theirs[max(mine, key=mine.__getitem__)] == max(theirs.values()))
        bottoms.append(theirs[min(mine, key=mine.__getitem__)] == min(theirs.values()))
    return {"best": fmean(tops), "worst": fmean(bottoms)}


def quality(response: JudgeResponse) -> Mapping[str, float]:
    """The candidates' scores."""
    return {v.candidate_id: v.score for v in response.verdicts if v.axis == Axis.QUALITY and v.score is not None}


def failed(responses: Sequence[JudgeResponse]) -> int:
    """Verdicts without a score."""
    return sum(verdict.score is None for response in responses for verdict in response.verdicts)
