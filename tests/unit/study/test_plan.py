"""From a study to configurations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from preceptor_client.stack import Endpoints
from preceptor_trainer.errors import TrainError
from preceptor_trainer.study.definition import Study, StudySize, load_study
from preceptor_trainer.study.plan import Run, StudyFolder, flops_of_a_step, grouped, plan_runs

ENDPOINTS = Endpoints("redis://here:1/0", "http://teacher", "teacher", "http://judge", "http://rewrite", ())
NEXT_TOKEN = {"objective.name": "nll", "pool": {"original": True}}


def study(*variants: dict[str, Any], name: str = "mine", **size: int) -> Study:
    values = [{"about": variant["name"], **variant} for variant in variants]
    return Study.model_validate(
        {"name": name, "title": "t", "question": "q", "size": StudySize(**{"steps": 40, **size}), "variants": values}
    )


def test_a_change_replaces_a_key_whole_and_leaves_the_others() -> None:
    plain, changed = plan_runs(
        study({"name": "sip"}, {"name": "safety", "changes": {"judge.axes": {"safety": 1.0}}}), seeds=1
    )[1:]
    assert plain.plan
    assert changed.plan
    assert changed.plan.judge.axes == {"safety": 1.0}
    assert changed.plan.judge.gates == plain.plan.judge.gates
    assert changed.plan.model_dump(exclude={"judge"}) == plain.plan.model_dump(exclude={"judge"})


def test_a_change_may_reach_into_what_is_left_out_by_default() -> None:
    run = plan_runs(study({"name": "a", "changes": {"pool.controller.window": 8}}), seeds=1)[1]
    assert run.plan
    assert run.plan.pool.controller
    assert run.plan.pool.controller.window == 8


def test_studies_that_have_a_run_in_common_know_it_by_the_same_id() -> None:
    here = plan_runs(study({"name": "sip"}, name="here"), seeds=2)
    there = plan_runs(study({"name": "k-4", "changes": {"pool.rollouts": 4}}, name="there"), seeds=2)
    assert [run.id for run in here] == [run.id for run in there]
    assert len({run.id for run in here}) == 4


@pytest.mark.parametrize(
    "other",
    [
        study({"name": "sip", "changes": {"objective.beta": 0.2}}),
        study({"name": "sip", "start": "scratch"}),
        study({"name": "sip", "hold": True}),
        study({"name": "sip", "teacher_steps": 300}),
        study({"name": "sip"}, steps=41),
        study({"name": "sip"}, pretrain_steps=3),
        study({"name": "sip"}, judged=3),
    ],
)
def test_whatever_decides_what_comes_of_a_run_decides_its_id(other: Study) -> None:
    assert plan_runs(study({"name": "sip"}), seeds=1)[1].id != plan_runs(other, seeds=1)[1].id


def test_the_base_model_is_one_run_whatever_the_others_train() -> None:
    assert plan_runs(study({"name": "sip"}), seeds=1)[0].id == plan_runs(study({"name": "a"}, steps=9), seeds=1)[0].id


def test_steps_by_flops_take_those_of_the_other_variant() -> None:
    runs = plan_runs(study({"name": "sip"}, {"name": "nll", "flops_of": "sip", "changes": NEXT_TOKEN}), seeds=1)
    sip, nll = (run.plan for run in runs[1:])
    assert sip
    assert nll
    assert nll.steps > 3 * sip.steps, "a judged step takes much more"
    assert runs[2].flops == pytest.approx(runs[1].flops, rel=0.5 / nll.steps)
    assert runs[1].flops == sip.steps * flops_of_a_step(sip)


def test_a_run_finds_its_place_and_the_services(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    held = plan_runs(study({"name": "late", "hold": True, "start": "scratch"}), seeds=3)[-1]
    config = held.config(folder, ENDPOINTS, threads=1)
    assert (config.run, config.out, config.seed) == (held.id, tmp_path / "runs" / held.id, 2)
    assert config.model.path.endswith("/scratch")
    assert Path(config.data.path) == held.corpus(folder)
    assert (config.judge.redis_url, config.rewrite.url) == ("redis://here:1/0", "http://rewrite")
    assert config.judge.namespace.startswith("held-"), "the stack's own worker must not answer"
    assert held.documents == 2 * config.steps * config.cohorts_per_step


def test_only_some_variants_can_be_asked_for_and_keep_their_ids() -> None:
    whole = study({"name": "sip"}, {"name": "nll", "flops_of": "sip", "changes": NEXT_TOKEN})
    assert [run.id for run in plan_runs(whole, seeds=1, only=["nll"])] == [
        run.id for run in plan_runs(whole, seeds=1) if run.variant.name != "sip"
    ]
    with pytest.raises(TrainError, match="no variant nil: there is sip, nll"):
        plan_runs(whole, seeds=1, only=["nil"])


def test_a_variant_that_cannot_be_trained_is_told_by_its_name_and_key() -> None:
    with pytest.raises(TrainError, match=r"study mine, variant a: objective\.beat"):
        plan_runs(study({"name": "a", "changes": {"objective.beat": 1}}), seeds=1)


def names(groups: Iterable[list[Run]]) -> list[list[str]]:
    return [[f"{run.variant.name} {run.seed}" for run in group] for group in groups]


def test_each_judge_is_started_once() -> None:
    runs = plan_runs(study({"name": "a", "teacher_steps": 300}, {"name": "b"}, {"name": "c", "hold": True}), seeds=2)
    assert names(grouped(runs)) == [["base 0", "b 0", "c 0", "base 1", "b 1", "c 1"], ["a 0", "a 1"]]


TWICE = study(
    {"name": "one"},
    {"name": "two", "teacher_steps": 300, "teacher_from": "one"},
    {"name": "three", "start": "two"},
    {"name": "plain", "teacher_steps": 300, "teacher_from": "base"},
)


def test_a_run_comes_after_those_that_it_needs_whatever_judges_it() -> None:
    runs = plan_runs(TWICE, seeds=2)
    assert names(grouped(runs)) == [
        ["base 0", "one 0", "base 1", "one 1"],
        ["two 0"],
        ["three 0"],
        ["plain 0"],
        ["two 1"],
        ["three 1"],
        ["plain 1"],
    ]
    missing = [run for run in runs if run.variant.name == "three"]
    assert names(grouped(missing)) == [["three 0", "three 1"]], "what is done is waited for by nobody"


def test_a_variant_that_is_asked_for_brings_those_that_it_needs() -> None:
    assert [run.variant.name for run in plan_runs(TWICE, seeds=1, only=["three"])] == ["base", "one", "two", "three"]


def test_a_run_begins_as_what_others_have_come_to(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    _, one, two, three, plain = plan_runs(TWICE, seeds=1)
    assert two.teacher_start(folder) == tmp_path / "runs" / one.id / "final"
    assert three.start(folder) == folder.policy(two.id)
    assert three.config(folder, ENDPOINTS, threads=1).model.path == str(folder.policy(two.id))
    assert plain.teacher_start(folder) == folder.world(0, plain.size).run("base")
    assert one.teacher_start(folder) is None


def test_a_change_of_what_a_run_begins_with_is_a_change_of_the_run() -> None:
    changed = TWICE.model_copy(
        update={
            "variants": (TWICE.variants[0].model_copy(update={"changes": {"objective.beta": 0.2}}), *TWICE.variants[1:])
        }
    )
    before, after = ({run.variant.name: run.id for run in plan_runs(each, seeds=1)} for each in (TWICE, changed))
    assert {name for name in before if before[name] != after[name]} == {"one", "two", "three"}
    assert len(set(before.values())) == 5


def test_a_run_is_known_by_what_differs_from_the_defaults() -> None:
    by_default = {run.variant.name: run.id for run in plan_runs(study({"name": "a"}), seeds=1)}
    said = {run.variant.name: run.id for run in plan_runs(study({"name": "a", "changes": {"tracing": {}}}), seeds=1)}
    assert said == by_default, "an option that came later, and is left as it is, makes no other run"


def test_studies_share_the_runs_that_they_have_in_common() -> None:
    main, twice = (
        {run.variant.name: run.id for run in plan_runs(load_study(name), seeds=1)} for name in ("main", "twice")
    )
    assert twice["sip"] == main["sip"], "round 1 is trained once"
    assert twice["usual"] == plan_runs(load_study("judges"), seeds=1)[1].id


SAFE = {"token": "<safe>", "share": 0.5, "axes": {"safety": 1.0}}
RAW = {"token": "<raw>", "share": 0.5, "axes": {"quality": 1.0}}
CONTROLLED = {"changes": {"controls": [SAFE, RAW]}}


def test_a_policy_is_trained_once_and_measured_behind_each_control(tmp_path: Path) -> None:
    behind = [{"name": name, "control": f"<{name}>", **CONTROLLED} for name in ("safe", "raw")]
    runs = plan_runs(study({"name": "neither", **CONTROLLED}, *behind), seeds=1)[1:]
    assert len({run.id for run in runs}) == 3
    assert {run.training for run in runs} == {runs[0].id}
    folder = StudyFolder(tmp_path)
    assert {run.config(folder, ENDPOINTS, threads=1).out for run in runs} == {folder.run(runs[0].id)}


def test_a_control_that_was_not_trained_cannot_be_measured() -> None:
    with pytest.raises(TrainError, match="variant a: <good> is none of its controls"):
        plan_runs(study({"name": "a", "control": "<good>", **CONTROLLED}), seeds=1)
