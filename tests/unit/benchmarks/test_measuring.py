from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.measuring import result as result_module
from benchmarks.measuring.result import Goal, Result, finish, parser
from benchmarks.measuring.sides import interleaved, medians


@pytest.mark.parametrize(("sides", "rounds"), [(1, 2), (3, 4)])
def test_each_side_runs_once_a_round_and_once_before_and_the_first_one_turns(sides: int, rounds: int) -> None:
    calls: list[str] = []
    names = [f"side {number}" for number in range(sides)]
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in names}, rounds)  # type: ignore[misc]
    assert list(seconds) == names
    assert all(len(each) == rounds for each in seconds.values())
    turns = [calls[start : start + sides] for start in range(0, len(calls), sides)]
    assert turns[0] == names
    assert [turn[0] for turn in turns[1:]] == [names[turn % sides] for turn in range(rounds)]
    assert all(sorted(turn) == sorted(names) for turn in turns)


def test_a_median_is_not_moved_by_one_slow_round() -> None:
    assert medians({"a": [1.0, 90.0, 2.0]}) == {"a": 2.0}


def test_a_goal_is_met_at_its_bound() -> None:
    assert Goal("speed", 5.0, ">=", 5.0).met
    assert Goal("error", 0.1, "<=", 0.1).met
    assert not Goal("speed", 4.9, ">=", 5.0).met


def test_a_result_is_one_json_line_at_the_end_and_kept_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(result_module, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    made = Result(
        "queue", {"rates": [1.23456], "size": 7}, [Goal("rate", 2.0, ">=", 3.0)], packages=("pydantic", "nope")
    )
    finish(made, argparse.Namespace(json=False, save=False))
    goal, line = capsys.readouterr().out.splitlines()
    assert goal == "rate: 2 (MISSED: >= 3)"
    assert not list((tmp_path / "results").iterdir())
    finish(made, argparse.Namespace(json=True, save=True))
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "results" / "queue.json").read_text())
    whole = json.loads(line)
    assert (whole["benchmark"], whole["rates"], whole["size"]) == ("queue", [1.235], 7)
    assert whole["goals"] == [{"figure": "rate", "measured": 2.0, "relation": ">=", "bound": 3.0, "met": False}]
    assert {"python", "pydantic"} == set(whole["versions"])
    assert {"at", "commit", "cpu", "cpus", "memory_gb"} == set(whole["measured"])


def test_every_benchmark_takes_json_and_save() -> None:
    options = parser("Title.\n\nMethod.", "name").parse_args(["--json", "--save"])
    assert (options.json, options.save) == (True, True)
