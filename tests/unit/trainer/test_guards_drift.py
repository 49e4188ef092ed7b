from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from preceptor_trainer.guards.config import BaselineGuard, Guard
from preceptor_trainer.guards.drift import DriftGuards, WatchState

STATE = TypeAdapter(WatchState)


def alarms(guard: Guard, readings: Sequence[float]) -> list[tuple[int, str]]:
    """Number of the reading, and what was said then."""
    guards = DriftGuards({"entropy": guard}, {})
    return [(n, alarm.action) for n, reading in enumerate(readings) for alarm in guards.read({"entropy": reading})]


def test_a_limit_that_is_not_passed_says_nothing() -> None:
    guard = Guard(above=2.0, below=1.0, warn_after=1, act_after=1, action="stop")
    assert alarms(guard, [1.0, 1.5, 2.0]) == []
    assert alarms(guard, [2.1]) == alarms(guard, [0.9]) == [(0, "stop")]


def test_it_warns_once_then_acts_and_counts_anew_after_that() -> None:
    guard = Guard(above=1.0, warn_after=2, act_after=4, action="pause")
    expected = [(1, "warn"), (3, "pause"), (5, "warn"), (7, "pause")]
    assert alarms(guard, [2.0] * 8) == expected


def test_a_guard_that_only_warns_does_so_once_until_the_reading_has_been_within_its_limits() -> None:
    guard = Guard(above=1.0, warn_after=2, act_after=3)
    assert alarms(guard, [2.0] * 9 + [1.0, 1.0, 2.0, 2.0]) == [(1, "warn"), (9, "clear"), (12, "warn")]


def test_readings_beyond_a_limit_that_are_not_in_a_row_are_noise() -> None:
    assert alarms(Guard(above=1.0, warn_after=2, act_after=2), [2.0, 1.0] * 10) == []


def test_a_share_of_the_baseline_counts_once_the_baseline_is_there() -> None:
    guard = BaselineGuard(rise=0.5, fall=0.5, baseline=2, warn_after=1, act_after=1, action="stop")
    assert alarms(guard, [100.0, 0.0]) == []
    assert alarms(guard, [1.0, 3.0, 3.0, 1.0]) == []
    assert alarms(guard, [1.0, 3.0, 3.1]) == alarms(guard, [1.0, 3.0, 0.9]) == [(2, "stop")]


def test_a_limit_that_is_a_number_counts_from_the_first_reading() -> None:
    assert alarms(BaselineGuard(above=2.0, rise=9.0, warn_after=1), [3.0]) == [(0, "warn")]


def test_what_is_no_number_is_beyond_any_limit_and_in_no_baseline() -> None:
    guard = BaselineGuard(rise=0.5, baseline=1, warn_after=1, act_after=1, action="stop")
    assert alarms(guard, [math.nan, 1.0, math.inf, 1.0]) == [(0, "stop"), (2, "stop")]


def test_an_alarm_says_what_was_read_and_against_what() -> None:
    guards = DriftGuards({"entropy": BaselineGuard(fall=0.5, baseline=1, warn_after=1, act_after=2, action="stop")}, {})
    said = [str(alarm) for reading in (2.0, 0.75, 0.5) for alarm in guards.read({"entropy": reading})]
    assert said == [
        "drift guard entropy: 0.75 is below 1 (its baseline 2 - 50%)",
        "drift guard entropy: 0.5 is below 1 (its baseline 2 - 50%), beyond a limit 2 times in a row",
    ]
    warns = DriftGuards({"abstention": Guard(above=0.5, warn_after=1)}, {})
    assert [str(alarm) for reading in (0.75, 0.25) for alarm in warns.read({"abstention": reading})] == [
        "drift guard abstention: 0.75 is above 0.5",
        "drift guard abstention: within its limits again (0.25)",
    ]


def test_each_guard_reads_its_own_and_one_without_a_reading_waits() -> None:
    guard = Guard(above=1.0, warn_after=2)
    guards = DriftGuards({"entropy": guard, "abstention": guard}, {})
    assert guards.read({"entropy": 2.0, "length": 9.0}) == []
    assert guards.read({"abstention": 2.0}) == []
    assert [alarm.guard for alarm in guards.read({"entropy": 2.0})] == ["entropy"]


@given(st.lists(st.floats(min_value=0, max_value=4), max_size=30), st.integers(0, 30))
def test_a_state_that_went_through_a_checkpoint_gives_the_same_alarms(readings: list[float], cut: int) -> None:
    on = {"entropy": BaselineGuard(rise=0.3, below=0.5, baseline=3, warn_after=2, act_after=4, action="pause")}
    whole, part = DriftGuards(on, {}), DriftGuards(on, {})  # type: ignore[arg-type]
    expected = [whole.read({"entropy": reading}) for reading in readings]
    found = [part.read({"entropy": reading}) for reading in readings[:cut]]
    kept = STATE.validate_json(STATE.dump_json(WatchState(part.states)))
    rest = DriftGuards(on, kept.guards)  # type: ignore[arg-type]
    assert found + [rest.read({"entropy": reading}) for reading in readings[cut:]] == expected
