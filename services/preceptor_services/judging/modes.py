"""The ways of judging an axis: pointwise, pairwise by a schedule, listwise. Each asks, and says what the answers mean.

In: a rubric, a cohort's texts, and `ask`, which puts questions to the teacher. Out: a `Judgement` with a finding per
distinct text. Guarantees: a question that failed or could not be read contributes to no score, nor does its counterpart
in the other order. Waits for `ask`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from statistics import fmean
from typing import Literal

from preceptor_client.contract import Comparison, Mode, Order, ScheduleName, Votes
from preceptor_services.engine import Prompt
from preceptor_services.judging.findings import Finding, Heard, Judgement, first_error
from preceptor_services.judging.texts import Texts
from preceptor_services.rubrics import Numbered, Rubric
from preceptor_services.schedules import (
    Outcome,
    Standing,
    Unanswered,
    position_bias,
    position_consistency,
    tournament,
)


@dataclass(frozen=True)
class Question:
    """One prompt, and the texts of candidates that it shows, in its order."""

    prompt: Prompt
    texts: tuple[str, ...]


Ask = Callable[[Sequence[Question]], Awaitable[list[Heard]]]


@dataclass(frozen=True)
class Pairing:
    """How pairs are chosen and shown; `seed` decides by lot."""

    schedule: ScheduleName
    order: Order
    seed: int
    budget: int | None = None


async def judge_axis(rubric: Rubric, texts: Texts, pairing: Pairing, ask: Ask) -> Judgement:
    """One axis of one cohort, in the rubric's mode."""
    match rubric.spec.mode:
        case Mode.POINTWISE:
            return await _pointwise(rubric, texts, ask)
        case Mode.PAIRWISE:
            return await _pairwise(rubric, texts, pairing, ask)
        case Mode.BEST_OF | Mode.RANKING:
            return await _listwise(rubric, texts, pairing, ask)


async def _pointwise(rubric: Rubric, texts: Texts, ask: Ask) -> Judgement:
    questions = [Question(rubric.render(**texts.shared, candidate=text), (text,)) for text in texts.distinct]
    return Judgement([_graded(rubric, heard) for heard in await ask(questions)])


def _graded(rubric: Rubric, heard: Heard) -> Finding:
    if heard.error is not None:
        return Finding(None, Votes(failed=1), heard.error)
    counts = Counter(heard.labels)
    votes = Votes(counts=dict(counts), unreadable=heard.unreadable)
    if not counts:
        return Finding(None, votes)
    score = sum(rubric.spec.labels[label] * votes for label, votes in counts.items()) / counts.total()
    return Finding(score, votes, rationale=heard.rationale)


async def _pairwise(rubric: Rubric, texts: Texts, pairing: Pairing, ask: Ask) -> Judgement:
    contest = tournament(
        pairing.schedule, texts.copies, order=pairing.order, seed=pairing.seed, pivot=texts.pivot, budget=pairing.budget
    )
    heard: dict[tuple[int, int], Heard] = {}
    error: str | None = None
    while pairs := contest.next_round():
        shown = [(texts.distinct[first], texts.distinct[second]) for first, second in pairs]
        answers = await ask([Question(rubric.render(**texts.shared, a=a, b=b), (a, b)) for a, b in shown])
        said = dict(zip(pairs, answers, strict=True))
        contest.record({pair: outcome_of(rubric, one) for pair, one in said.items()})
        error = error or first_error(answers)
        heard |= said

    def comparisons() -> list[Comparison]:
        return [
            Comparison(
                first=texts.names[first],
                second=texts.names[second],
                outcome=_in_words(contest.outcomes[first, second]),
                rationale=one.rationale,
            )
            for (first, second), one in heard.items()
        ]

    return Judgement(
        [_placed(standing, error) for standing in contest.standings()],
        position_consistency(contest.outcomes),
        position_bias(contest.outcomes),
        comparisons,
    )


def outcome_of(rubric: Rubric, heard: Heard) -> Outcome:
    """A comparison's outcome for the text shown first: what most readable votes say, a tie if they are split."""
    if heard.error is not None:
        return Unanswered.FAILED
    values = [rubric.spec.labels[label] for label in heard.labels]
    if not values:
        return Unanswered.UNREADABLE
    if len(values) == 1:
        return values[0]
    ranked = Counter(values).most_common(2)
    return 0.5 if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _in_words(outcome: Outcome) -> Literal["first", "second", "tie", "unreadable", "failed"]:
    match outcome:
        case Unanswered.FAILED:
            return "failed"
        case Unanswered.UNREADABLE:
            return "unreadable"
        case _:
            return "first" if outcome == 1 else "second" if outcome == 0 else "tie"


def _placed(standing: Standing, error: str | None) -> Finding:
    counts = {"won": standing.won, "lost": standing.lost, "tied": standing.tied}
    votes = Votes(counts=counts, unreadable=standing.unreadable, failed=standing.failed)
    return Finding(standing.score, votes, error)


async def _listwise(rubric: Rubric, texts: Texts, pairing: Pairing, ask: Ask) -> Judgement:
    count = len(texts.distinct)
    if count == 1:
        return Judgement([Finding(0.5, Votes())])
    shown_in = _orders(count, pairing)
    questions = []
    for shown in shown_in:
        candidates = [Numbered(number, texts.distinct[index]) for number, index in enumerate(shown, start=1)]
        prompt = rubric.render(**texts.shared, candidates=candidates)
        questions.append(Question(prompt, tuple(candidate.text for candidate in candidates)))
    answers = await ask(questions)
    places = [_places(rubric, shown, heard) for shown, heard in zip(shown_in, answers, strict=True)]
    unreadable = sum(heard.unreadable for heard in answers)
    failed = sum(heard.error is not None for heard in answers)
    error = first_error(answers)
    rationale = next((heard.rationale for heard in answers if heard.rationale), None)
    findings = []
    for index in range(count):
        own = [[place[index] for place in of_order] for of_order in places]
        counts = Counter(place.name for of_order in own for place in of_order)
        votes = Votes(counts=dict(counts), unreadable=unreadable, failed=failed)
        # Each order counts alike, and one alone for nothing: a liking for a place would be taken for a verdict.
        score = fmean(fmean(place.score for place in of_order) for of_order in own) if all(own) else None
        findings.append(Finding(score, votes, error, rationale))
    return Judgement(findings, _agreement(places))


@dataclass(frozen=True)
class _Place:
    """Where one vote puts one text."""

    name: str
    score: float


def _orders(count: int, pairing: Pairing) -> list[list[int]]:
    """The orders in which all texts are shown: as they come and reversed, or one by lot."""
    if pairing.order is Order.BOTH:
        return [list(range(count)), list(reversed(range(count)))]
    return [Random(pairing.seed).sample(range(count), count)]


def _places(rubric: Rubric, shown: Sequence[int], heard: Heard) -> list[dict[int, _Place]]:
    """For every readable vote, where it puts each text."""
    count = len(shown)
    if rubric.spec.mode is Mode.RANKING:
        return [
            {
                shown[number]: _Place(f"placed {place + 1}", (count - 1 - place) / (count - 1))
                for place, number in enumerate(reading.order)
            }
            for reading in heard.orders
            if reading.order is not None
        ]
    best = [shown[int(label) - 1] for label in heard.labels]
    return [
        {index: _Place("best", 1.0) if index == one else _Place("not best", 0.0) for index in shown} for one in best
    ]


def _agreement(places: Sequence[Sequence[dict[int, _Place]]]) -> float | None:
    """Share of the pairs told apart in both orders that the first votes of both put the same way round."""
    if len(places) != 2 or not places[0] or not places[1]:
        return None
    one, other = places[0][0], places[1][0]
    agreeing = []
    for i, j in combinations(one, 2):
        gaps = (one[i].score - one[j].score, other[i].score - other[j].score)
        if gaps != (0, 0):
            agreeing.append(gaps[0] * gaps[1] > 0)
    return sum(agreeing) / len(agreeing) if agreeing else None
