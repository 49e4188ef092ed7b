"""The controller of the candidates."""

from __future__ import annotations

import pytest

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ControllerConfig, PoolConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.growth import Growth, begun, grown

ROLLOUT = TokenCandidate("rollout-0", Origin.ROLLOUT, (1,), "1")
ORIGINAL = TokenCandidate("original", Origin.ORIGINAL, (2,), "2")
POOL = PoolConfig(rollouts=3, controller=ControllerConfig(share=0.5, window=4))


def batch(won: int, lost: int) -> list[PolicyCohort]:
    def cohort(chosen: TokenCandidate) -> PolicyCohort:
        judged = Judged({}, {}, chosen, ORIGINAL)
        return PolicyCohort("c", Window(0, 0, (1,), (2,)), 0, (ROLLOUT, ORIGINAL), judged)

    return [cohort(ROLLOUT)] * won + [cohort(ORIGINAL)] * lost


def test_without_a_controller_there_are_always_as_many() -> None:
    pool = PoolConfig(rollouts=3)
    assert begun(pool) == Growth(3)
    assert grown(begun(pool), batch(9, 0), pool) == Growth(3)


def test_one_is_added_when_rollouts_have_won_their_share_of_a_window() -> None:
    growth = begun(POOL)
    assert growth.rollouts == 1
    growth = grown(growth, batch(1, 1), POOL)
    assert growth == Growth(1, cohorts=2, won=1)
    assert grown(growth, batch(1, 1), POOL) == Growth(2)


@pytest.mark.parametrize(("won", "lost", "rollouts"), [(1, 3, 1), (2, 2, 2), (4, 0, 2), (0, 4, 1)])
def test_a_window_that_is_full_is_counted_anew_whatever_came_of_it(won: int, lost: int, rollouts: int) -> None:
    assert grown(begun(POOL), batch(won, lost), POOL) == Growth(rollouts)


def test_there_are_never_more_than_the_pool_allows() -> None:
    growth = begun(POOL)
    for _ in range(9):
        growth = grown(growth, batch(4, 0), POOL)
    assert growth == Growth(3)


def test_a_run_that_is_resumed_has_as_many_as_its_pool_says_now() -> None:
    assert begun(PoolConfig(rollouts=8), Growth(4)) == Growth(8)
    assert begun(PoolConfig(rollouts=2), Growth(0)) == Growth(2)
    assert begun(POOL, Growth(2, cohorts=3, won=1)) == Growth(2, cohorts=3, won=1)
    assert begun(POOL, Growth(8)) == Growth(3)
    assert begun(POOL, Growth(0)) == Growth(1)
