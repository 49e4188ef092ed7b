"""From the scores of a cohort on several axes to one score per candidate. Pure.

    scores, texts -> gates -> what counts -> weighted mean

In: a `Composition`, the cohort, and the scores that there are. Out: a `Composite` per candidate, in the cohort's
order. Guarantees: a candidate without a score on an axis that the composition needs has none, never 0; a gate that
fails takes away what it guards and never adds anything; renaming or reordering the candidates changes no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum

from preceptor_client.contract import (
    AxisGate,
    Candidate,
    Cohort,
    Composite,
    Composition,
    CopyGate,
    Gate,
    LengthGate,
    Origin,
    RepetitionGate,
)
from preceptor_services.checks import copied, ngrams, repetition, units, words

Scores = Mapping[tuple[str, str], float]
"""(candidate id, axis) -> score in [0, 1]; without the verdicts that have none."""


def compose(composition: Composition, cohort: Cohort, scores: Scores) -> tuple[Composite, ...]:
    """The composite score of every candidate."""
    faults = [(gate, faults_of(gate, cohort, scores)) for gate in composition.gates]
    composites = []
    for index, candidate in enumerate(cohort.candidates):
        failed = {gate: fault for gate, found in faults if (fault := found[index])}
        missing = [axis for axis in composition.axes if (candidate.id, axis) not in scores]
        composites.append(
            Composite(
                candidate_id=candidate.id,
                score=None if missing else _score(composition, candidate, scores, failed),
                failed_gates=tuple(failed.values()),
                reason=f"no score on {', '.join(missing)}" if missing else None,
            )
        )
    return tuple(composites)


def _score(composition: Composition, candidate: Candidate, scores: Scores, failed: Mapping[Gate, str]) -> float:
    lost = {axis for gate in failed for axis in gate.guards or composition.weights}
    earned = [weight * scores[candidate.id, axis] for axis, weight in composition.weights.items() if axis not in lost]
    return fsum(earned) / fsum(composition.weights.values())


def faults_of(gate: Gate, cohort: Cohort, scores: Scores) -> list[str | None]:
    """For every candidate what `gate` finds wrong with it, with the measure and the bound; None where it holds."""
    match gate:
        case AxisGate():
            found = [scores.get((candidate.id, gate.axis)) for candidate in cohort.candidates]
            return [_below(gate.axis, score, gate.minimum) for score in found]
        case LengthGate():
            against, size = _compared_with(cohort)
            return [_length_fault(gate, len(words(candidate.text)), against, size) for candidate in cohort.candidates]
        case RepetitionGate():
            said = frozenset(ngrams(units(cohort.prefix), gate.ngram)) if gate.prefix else frozenset()
            shares = [repetition(units(candidate.text), gate.ngram, said) for candidate in cohort.candidates]
        case CopyGate():
            given = frozenset(ngrams(units(cohort.prefix), gate.ngram))
            shares = [copied(units(candidate.text), gate.ngram, given) for candidate in cohort.candidates]
    return [_above(gate.kind, share, gate.max_share) for share in shares]


def _compared_with(cohort: Cohort) -> tuple[str, int]:
    """What a relative length is relative to, and its number of words; 0 if there is nothing."""
    if cohort.reference is not None:
        return "the reference", len(words(cohort.reference))
    originals = (candidate.text for candidate in cohort.candidates if candidate.origin is Origin.ORIGINAL)
    return "the original", len(words(next(originals, "")))


def _length_fault(gate: LengthGate, count: int, against: str, size: int) -> str | None:
    fault = _below("length", count, gate.min_words, " words") or _above("length", count, gate.max_words, " words")
    if fault or not size:
        return fault
    unit = f" of {against}"
    return _below("length", count / size, gate.min_ratio, unit) or _above("length", count / size, gate.max_ratio, unit)


def _below(name: str, measured: float | None, bound: float, unit: str = "") -> str | None:
    return None if measured is None or measured >= bound else f"{name} {_written(measured)}{unit} < {bound:g}"


def _above(name: str, measured: float, bound: float | None, unit: str = "") -> str | None:
    return None if bound is None or measured <= bound else f"{name} {_written(measured)}{unit} > {bound:g}"


def _written(measured: float) -> str:
    return f"{measured:.2f}" if isinstance(measured, float) else str(measured)
