from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from preceptor_trainer.demo.report import MODELS, Findings, origin_shares, show, to_json, write_report
from preceptor_trainer.evaluation.nano import AXES

ORIGINS = ("original", "rewrite", "rollout")
LINES = st.lists(st.dictionaries(st.sampled_from(ORIGINS), st.integers(0, 16)), max_size=70)


def test_shares_are_those_of_each_part_of_the_run() -> None:
    metrics = [
        {"step": 1, "chosen": {"original": 3, "rollout": 1}},
        {"step": 2, "chosen": {"rewrite": 4}},
        {"step": 3, "chosen": {"rollout": 4}},
        {"step": 4, "chosen": {"rollout": 4}},
    ]
    assert origin_shares(metrics, spans=2) == [
        {"step": 2, "original": 3 / 8, "rewrite": 4 / 8, "rollout": 1 / 8},
        {"step": 4, "original": 0, "rewrite": 0, "rollout": 1},
    ]


def test_a_part_in_which_nothing_was_chosen_has_no_shares() -> None:
    assert origin_shares([{"step": 1, "chosen": {}}, {"step": 2, "chosen": {"rollout": 1}}], spans=2) == [
        {"step": 2, "original": 0, "rewrite": 0, "rollout": 1}
    ]
    assert origin_shares([]) == []


@given(LINES, st.integers(1, 12))
def test_shares_add_up_to_one_and_no_step_is_left_out(chosen: list[dict[str, int]], spans: int) -> None:
    metrics = [{"step": step, "chosen": counts} for step, counts in enumerate(chosen, start=1)]
    shares = origin_shares(metrics, spans)
    assert all(sum(share[origin] for origin in ORIGINS) == pytest.approx(1) for share in shares)
    steps = [share["step"] for share in shares]
    assert steps == sorted(set(steps))
    if any(chosen[-1:]) and any(chosen[-1].values()):
        assert steps[-1] == len(chosen)


def test_the_json_has_every_figure_that_is_asked_of_a_demo(findings: Findings) -> None:
    report = json.loads(json.dumps(to_json(findings)))
    assert report["wall_s"] == 412.3
    assert report["held_out_prefixes"] == 60
    for axis in AXES:
        assert report["teacher"][axis]["accuracy"] == getattr(findings.accuracy, axis)
        of_axis = report["axes"][axis]
        assert of_axis["sip"] > of_axis["nll"]
        assert of_axis["relative_gain"] == pytest.approx(of_axis["sip"] / of_axis["nll"] - 1, abs=1e-3)
        for name in (*MODELS, "relative_gain"):
            low, high = of_axis["ci95"][name]
            assert low <= of_axis[name] <= high
    for rival in ("nll", "base"):
        win_rate = report[f"win_rate_vs_{rival}"]
        assert 0.5 < win_rate["ci95"][0] <= win_rate["value"] <= win_rate["ci95"][1] <= 1
    assert report["origin_share"] == origin_shares(findings.metrics)
    assert {key: report["judge"][key] for key in ("calls", "abstained", "failed", "tokens")} == {
        "calls": 900,
        "abstained": 3,
        "failed": 2,
        "tokens": 45_000,
    }


def test_a_model_that_is_as_good_as_its_rival_wins_half(findings: Findings) -> None:
    readings = {**findings.comparison.readings, "sip": findings.comparison.readings["nll"]}
    report = to_json(replace(findings, comparison=replace(findings.comparison, readings=readings)))
    assert report["win_rate_vs_nll"] == {"value": 0.5, "ci95": [0.5, 0.5]}
    assert all(report["axes"][axis]["relative_gain"] == 0 for axis in AXES)


@pytest.fixture(scope="module")
def folder(findings: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "report"
    assert write_report(folder, findings) == folder / "report.md"
    return folder


def test_every_file_is_written(folder: Path, findings: Findings) -> None:
    assert json.loads((folder / "report.json").read_text()) == to_json(findings)
    pictures = sorted(folder.glob("*.png"))
    assert [picture.stem for picture in pictures] == ["axes", "origins", "training"]
    for picture in pictures:
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000, "more than an empty frame"
        assert f"]({picture.name})" in (folder / "report.md").read_text()
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 60
    for index in (0, 59):
        sip = findings.generations["sip"][index]
        texts = {model: findings.generations[model][index].text for model in MODELS}
        assert samples[index] == {"prefix": sip.prefix, "original": sip.original, **texts}


def test_the_tables_are_markdown_with_the_figures_of_the_json(folder: Path, findings: Findings) -> None:
    blocks = (folder / "report.md").read_text().split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 3
    for header, rule, *rows in tables:
        columns = header.count("|")
        assert rows
        assert set(rule) == set("|- ")
        for line in (rule, *rows):
            assert line.startswith("| ")
            assert line.endswith(" |")
            assert line.count("|") == columns
    figures = Counter(cell.strip() for rows in tables for row in rows for cell in row.split("|"))
    for axis in AXES:
        assert figures[str(findings.comparison.axis("sip", axis))]
        assert figures[f"{findings.comparison.gain('sip', 'nll', axis).value:+.1%}"]
    assert figures["96.5%"], "position consistency"


def test_the_terminal_shows_tables_and_samples(findings: Findings) -> None:
    printed = io.StringIO()
    show(Console(file=printed, width=200), findings)
    for title in ("The teacher on held-out labels", "Samples", "Measured by the oracle on held-out prefixes"):
        assert title in printed.getvalue()
    assert findings.generations["sip"][0].text.split()[0] in printed.getvalue()
