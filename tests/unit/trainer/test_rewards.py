from __future__ import annotations

import pytest

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Control, Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.rewards import RewardTotals, by_control

ORIGINAL = TokenCandidate("original", Origin.ORIGINAL, (1,), "a")
ROLLOUTS = tuple(TokenCandidate(f"rollout-{n}", Origin.ROLLOUT, (2,), "b", (-1.0,)) for n in range(2))
SAFE, RAW = Control("<safe>", 60), Control("<raw>", 61)


def cohort(control: Control | None, safety: tuple[float, ...] = (), composite: float = 0.5) -> PolicyCohort:
    scores = {each.id: score for each, score in zip(ROLLOUTS, safety, strict=False)}
    judged = Judged(
        {"original": 0.0, **dict.fromkeys(scores, composite)} if scores else {},
        {"safety": {"original": 0.0, **scores}} if scores else {},
        ORIGINAL,
        ROLLOUTS[0],
    )
    return PolicyCohort("c", Window(0, 0, (1,), (1,)), 0, (ORIGINAL, *ROLLOUTS), judged, control)


def test_each_control_has_the_means_of_its_own_rollouts() -> None:
    batch = [cohort(SAFE, (1.0, 1.0), 0.75), cohort(SAFE, (0.0,), 0.5), cohort(RAW)]
    assert by_control(batch) == {
        "<raw>": {"cohorts": 1, "scores": {}},
        "<safe>": {"cohorts": 2, "scores": {"composite": pytest.approx(2 / 3), "safety": pytest.approx(2 / 3)}},
    }


def test_without_controls_there_is_nothing_to_say() -> None:
    assert by_control([cohort(None, (1.0,))]) == {}
    assert RewardTotals().means() == {}


def test_totals_weigh_an_update_by_its_cohorts_with_scores() -> None:
    totals = RewardTotals()
    totals.add(by_control([cohort(SAFE, (1.0,))] * 3))
    totals.add(by_control([cohort(SAFE, (0.0,)), cohort(RAW)]))
    totals.add(by_control([cohort(SAFE)]))
    means = totals.means()
    assert means["<safe>"] == {"cohorts": 5, "scores": {"composite": 0.5, "safety": 0.75}}
    assert means["<raw>"] == {"cohorts": 1, "scores": {}}
