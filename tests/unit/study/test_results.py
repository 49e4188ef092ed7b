"""From records to tables."""

from __future__ import annotations

import re
from typing import Any

import pytest

from preceptor_trainer.study.definition import Study
from preceptor_trainer.study.results import JUDGES, LANGUAGE, WORTH, Row, markdown, rows

STUDY = Study.model_validate(
    {
        "name": "mine",
        "title": "Mine",
        "question": "What is mine?",
        "variants": [{"name": name, "about": f"the {name}"} for name in ("sip", "nll", "late")],
    }
)


def record(variant: str, seed: int, value: float, **measures: float) -> dict[str, Any]:
    found = dict.fromkeys([*WORTH, *LANGUAGE, *(f"{who}_wins" for who in JUDGES)], value) | measures
    return {
        "study": "mine",
        "variant": variant,
        "seed": seed,
        "id": f"{variant}-{seed}",
        "measures": {name: {"value": each, "ci95": [each - 0.1, each + 0.1]} for name, each in found.items()},
        "steps": 0 if variant == "base" else 100,
        "train_s": 36.0,
        "judge_calls": 1234,
        "flops": 2e12,
        "teacher": {"quality": 0.5 if variant == "late" else 0.9, "position_consistency": 0.75},
        "at": "2026-01-01",
        "commit": "abc",
        "cpu": "a CPU",
        "cpus": 2,
        "memory_gb": 8,
    }


RECORDS = [record("sip", seed, value) for seed, value in enumerate((0.6, 0.7, 0.8))] + [record("base", 0, 0.5)]


def test_rows_are_in_the_order_of_the_definition_and_only_of_what_is_done() -> None:
    assert [(row.name, len(row.records)) for row in rows(STUDY, RECORDS)] == [("base", 1), ("sip", 3)]


def test_several_seeds_have_students_interval_over_them_and_one_seed_its_own() -> None:
    base, sip = rows(STUDY, RECORDS)
    estimate = sip.estimate("safety")
    assert estimate
    assert estimate.value == pytest.approx(0.7)
    assert estimate.high - estimate.value == pytest.approx(4.303 * 0.1 / 3**0.5)
    alone = base.estimate("safety")
    assert alone
    assert (alone.value, alone.low, alone.high) == (0.5, 0.4, 0.6)
    assert base.estimate("unheard_of") is None


def test_what_the_training_judge_overstates_is_paired_by_seed() -> None:
    records = [
        record("sip", 0, 0.6, oracle_wins=0.6, judge_wins=0.8, second_wins=0.7),
        record("sip", 1, 0.4, oracle_wins=0.4, judge_wins=0.6, second_wins=0.6),
    ]
    row = Row("sip", "SIP", records)
    over_oracle, over_second = row.overstated("wins", "oracle"), row.overstated("wins", "second")
    assert over_oracle
    assert over_second
    assert over_oracle.value == pytest.approx(0.2)
    assert over_oracle.high == pytest.approx(0.2), "the same in both seeds"
    assert over_second.value == pytest.approx(0.05)
    assert over_second.high > 0.5, "two seeds tell little"


def test_the_section_asks_answers_and_says_on_what_it_ran() -> None:
    written = markdown(STUDY, RECORDS, level=2)
    assert written.startswith("## mine: Mine\n\nWhat is mine?\n")
    assert "| the sip | 3 | 0.700 ±0.248 |" in written
    assert "| base model | 1 | 0.500 ±0.100 |" in written
    assert "| 100 | 1.23k | 2T | 36 |" in written
    assert "4 runs, 0.0 hours of training, until 2026-01-01, at `abc` on 2 x a CPU, 8 GB." in written
    tables = re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE)
    assert len(tables) == 4
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)
    assert "| base model |" not in tables[2] + tables[3], "it has nothing to win against"


def test_a_training_that_several_runs_measure_is_counted_once() -> None:
    records = [{**record(name, 0, 0.6), "training": "one", "train_s": 7200.0} for name in ("sip", "nll")]
    assert "2 runs, 2.0 hours of training" in markdown(STUDY, records)


def test_judges_that_differ_are_shown_with_what_they_are_worth() -> None:
    written = markdown(STUDY, [*RECORDS, record("late", 0, 0.6)])
    assert "|  | quality | position consistency |" in written
    assert "| the late | 0.500 | 0.750 |" in written
    assert "| the sip | 0.900 | 0.750 |" in written, "the same judge in every seed"
    assert "The training judges" not in markdown(STUDY, RECORDS)


def test_a_judge_that_differs_by_seed_has_an_interval_over_them() -> None:
    late = [record("late", seed, 0.6) for seed in range(2)]
    late[1]["teacher"] = {"quality": 0.7, "position_consistency": 0.75}
    assert "| the late | 0.600 ±1.271 | 0.750 |" in markdown(STUDY, [*RECORDS, *late])


def test_a_study_of_which_nothing_is_done_says_so() -> None:
    assert "Nothing is done yet." in markdown(STUDY, [])
