"""What the doctor concludes from what it found, and what it finds of a policy and documents on this disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from preceptor_client.checks import Check
from preceptor_client.contract import AxisReport, Origin, Provenance, Sampling, Status, Usage, Verdict, Votes
from preceptor_trainer.cli import app
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import TokenCandidate
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.doctor.documents import check_documents, check_held_out
from preceptor_trainer.doctor.examine import examine
from preceptor_trainer.doctor.judging import answer_found, axis_found, candidates
from preceptor_trainer.doctor.policy import check_policy
from preceptor_trainer.doctor.room import disk_found, memory_found, needed_memory
from preceptor_trainer.doctor.services import check_policy_server, context_found, rewrite_found
from preceptor_trainer.doctor.versions import package_found, vllm_found
from preceptor_trainer.planning.models import ModelSizes
from tiny_policy import word_tokenizer
from tiny_run import tiny_run

SIZES = ModelSizes(name="policy", layers=16, hidden=2048, heads=32, kv_heads=8, mlp=8192, vocab=128_256)
CLOSED = "redis://127.0.0.1:9/0"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., TrainConfig]:
    return tiny_run(tmp_path, CLOSED)


def named(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def ended(checks: Generator[Check, None, Any]) -> tuple[list[Check], Any]:
    found = []
    while True:
        try:
            found.append(next(checks))
        except StopIteration as end:
            return found, end.value


def test_a_run_that_can_start_has_no_failure(run: Callable[..., TrainConfig]) -> None:
    checks = list(examine(run(), services=False))
    assert {check.grade for check in checks} == {"ok"}
    found = named(checks)
    assert {"torch", "transformers", "policy", "context", "memory", "disk", "documents"} <= found.keys()
    assert found["context"].found == "14 tokens (data.prefix_tokens + data.suffix_tokens) of 64"
    assert found["documents"].found == "16 windows from the first 16 documents, of 24 to 24 tokens, 24 in the middle"


def test_a_redis_that_is_away_is_a_failure_that_names_the_key(run: Callable[..., TrainConfig]) -> None:
    *_, last = examine(run(), services=True)
    assert (last.name, last.grade) == ("redis", "failure")
    assert last.advice.endswith("set judge.redis_url")


async def test_an_address_of_the_policys_server_that_is_none_is_a_failure(run: Callable[..., TrainConfig]) -> None:
    config = run(rollouts={"engine": "vllm", "vllm": {"url": "http://host:port"}})
    [found] = await check_policy_server(config)
    assert (found.grade, "http://host:port is no address" in found.found) == ("failure", True)


def test_a_run_longer_than_the_models_context_says_which_sizes_add_up(run: Callable[..., TrainConfig]) -> None:
    controls = [
        {"token": "<good>", "share": 0.5, "axes": {"quality": 1.0}},
        {"token": "w7", "share": 0.5, "prefer": ["original", "rollout"]},
    ]
    long = run(data={"prefix_tokens": 58}, controls=controls)
    found = named(check_policy(long))
    assert found["context"].grade == "failure"
    assert "data.prefix_tokens + data.suffix_tokens + 1 control token is 65" in found["context"].found
    assert found["controls"].found == "2 tokens; added to the tokenizer: <good>"


def test_delimiters_that_the_tokenizer_lacks_are_a_failure(run: Callable[..., TrainConfig]) -> None:
    pool = {"original": False}
    lacking = named(check_policy(run(pool=pool, thoughts={"open": "<t>", "close": "w4"})))
    assert (lacking["thoughts"].grade, lacking["thoughts"].advice) == (
        "failure",
        "set thoughts.open and thoughts.close",
    )
    assert named(check_policy(run(pool=pool, thoughts={"open": "w3", "close": "w4"})))["thoughts"].grade == "ok"


def test_a_folder_without_a_model_or_weights_is_a_failure(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    checks, policy = ended(check_policy(run(model={"path": "/nowhere"})))
    assert ([check.grade for check in checks], policy) == (["failure"], None)
    (tmp_path / "policy" / "model.safetensors").unlink()
    checks, policy = ended(check_policy(run()))
    assert "holds no weights" in checks[0].found
    assert policy.sizes.layers == 2


def test_documents_that_give_no_window_or_few_are_told(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    codec = Codec(word_tokenizer())
    [missing], windows = ended(check_documents(run(data={"path": "/nowhere.jsonl"}), codec))
    assert (missing.grade, windows) == ("failure", [])
    [long], _ = ended(check_documents(run(data={"suffix_tokens": 40}), codec))
    assert (long.grade, "lower data.suffix_tokens" in long.found) == ("failure", True)
    short = tmp_path / "short.jsonl"
    texts = ["w2", "w3", "w4 " * 9, "w5"]
    short.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    [few], windows = ended(check_documents(run(data={"path": str(short)}), codec))
    assert (few.grade, len(windows)) == ("warning", 1)
    assert "most have less than 7" in few.found


def test_documents_of_a_guard_are_looked_at_too(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    codec, held_out = Codec(word_tokenizer()), tmp_path / "held-out.jsonl"
    config = run(guards={"held_out_nll": {"path": str(held_out), "rise": 0.25}})
    [missing] = check_held_out(config, codec)
    assert (missing.grade, missing.advice) == ("failure", "set guards.held_out_nll.path")
    held_out.write_text(json.dumps({"text": "w4 " * 20}) + "\n")
    assert [check.found for check in check_held_out(config, codec)] == ["1 windows"]


def test_memory_is_told_for_one_gpu_or_the_number_that_is_enough(run: Callable[..., TrainConfig]) -> None:
    config = run(data={"prefix_tokens": 1920, "suffix_tokens": 128}, compute={"micro_cohorts": 1})
    need = needed_memory(config, SIZES, 1)
    assert need > 5 * 4 * SIZES.parameters
    assert memory_found(config, SIZES, [2 * need], "a GPU").grade == "ok"
    enough = memory_found(config, SIZES, [need] * 4, "a GPU")
    assert (enough.grade, enough.advice) == ("warning", "2 GPUs are enough: torchrun --nproc-per-node 2")
    small = memory_found(config, SIZES, [need / 10] * 2, "a GPU")
    assert (small.grade, small.advice.split()[:2]) == ("failure", ["lower", "compute.micro_cohorts"])


def test_rollouts_on_a_server_take_no_memory_here(run: Callable[..., TrainConfig]) -> None:
    there, here = (needed_memory(run(rollouts={"engine": engine}), SIZES, 1) for engine in ("vllm", "torch"))
    assert there + 3 * 4 * SIZES.parameters < here


def test_disk_holds_the_checkpoints_that_are_kept_and_two_more(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = run(checkpoint={"every": 5, "keep": 3})
    need = 5 * 3 * 4 * SIZES.parameters
    assert disk_found(config, SIZES, need, tmp_path).grade == "ok"
    full = disk_found(config, SIZES, need - 1, tmp_path)
    assert (full.grade, "checkpoint.keep" in full.advice) == ("failure", True)
    assert disk_found(run(), SIZES, need / 2, tmp_path).grade == "ok"


def test_versions_are_held_against_what_is_asked_for() -> None:
    asked = Requirement('torch>=2.6; extra == "trainer"')
    assert package_found(asked, "2.13.0+cpu").grade == "ok"
    old = package_found(asked, "2.5.1")
    assert (old.grade, old.advice) == ("warning", "pip install 'torch>=2.6'")
    assert [vllm_found(version).grade for version in ("0.32.1+cpu", "0.33.0", "0.3")] == ["ok", "warning", "warning"]


def test_a_servers_context_is_held_against_the_longest_sequence(run: Callable[..., TrainConfig]) -> None:
    assert [context_found(run(), tokens).grade for tokens in (14, None, 13)] == ["ok", "ok", "failure"]
    assert context_found(run(), 13).advice == "start it with --max-model-len 14"


@pytest.mark.parametrize(
    ("outcome", "grade"),
    [("rewritten", "ok"), ("unchanged", "ok"), ("refused", "warning"), ("failed", "failure"), ("unfit", "failure")],
)
def test_what_became_of_a_rewrite_is_graded(outcome: str, grade: str) -> None:
    assert rewrite_found(outcome).grade == grade


def report(consistency: float | None = None) -> AxisReport:
    provenance = Provenance(teacher="t", revision="r", rubric="s", rubric_hash="h", sampling=Sampling())
    return AxisReport(provenance=provenance, usage=Usage(calls=2), position_consistency=consistency)


def verdict(status: Status, *, unreadable: int = 0) -> Verdict:
    ok = status is Status.OK
    votes = Votes(unreadable=unreadable)
    return Verdict(
        candidate_id="c",
        axis="a",
        status=status,
        score=1.0 if ok else None,
        votes=votes,
        reason=None if ok else "too long",
    )


@pytest.mark.parametrize(
    ("verdicts", "grade"),
    [
        ([verdict(Status.OK), verdict(Status.OK)], "ok"),
        ([verdict(Status.OK), verdict(Status.ABSTAINED)], "warning"),
        ([verdict(Status.OK), verdict(Status.OK, unreadable=1)], "warning"),
        ([verdict(Status.ABSTAINED), verdict(Status.ABSTAINED)], "failure"),
        ([verdict(Status.OK), verdict(Status.FAILED)], "failure"),
    ],
)
def test_an_axis_is_graded_by_its_verdicts(verdicts: list[Verdict], grade: str) -> None:
    found = axis_found("a", report(0.5), verdicts)
    assert found.grade == grade
    assert "the same in both orders: 50%" in found.found
    assert ("too long" in found.found) == any(each.reason for each in verdicts)


def test_a_cohort_that_is_not_for_judges_is_a_failure() -> None:
    [check] = answer_found(None)
    assert check.grade == "failure"


@pytest.mark.parametrize(
    ("suffixes", "rewrite", "second"),
    [
        ([(10, 11), (12, 13)], (14, 15), "w14 w15"),
        ([(10, 11), (10, 11), (12, 13)], None, "w12 w13"),
        ([(10, 11), (12, 13)], (10, 11), "w12 w13"),
        ([(10, 11)], None, "w6 w7"),
    ],
)
def test_the_original_meets_what_reads_differently(
    suffixes: list[tuple[int, ...]], rewrite: tuple[int, ...] | None, second: str
) -> None:
    codec = Codec(word_tokenizer())
    windows = [Window(0, place, (5, 6, 7), suffix) for place, suffix in enumerate(suffixes)]
    rewritten = TokenCandidate("rewrite", Origin.REWRITE, rewrite, codec.decode(rewrite)) if rewrite else None
    original, other = candidates(codec, windows, rewritten)
    assert (original.text, other.text) == ("w10 w11", second)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--steps=0"], 2, "steps: "),
        (["--nope"], 2, "cannot read the override '--nope'"),
        (["--no-services", "--json"], 0, '"policy"'),
        (["--no-services", "--model.path=/nowhere"], 1, "set model.path"),
    ],
)
def test_the_command_ends_with_a_status(
    run: Callable[..., TrainConfig], tmp_path: Path, arguments: list[str], status: int, told: str
) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(json.dumps(run().model_dump(mode="json")))
    done = CliRunner().invoke(app, ["doctor", str(file), *arguments])
    assert done.exit_code == status, done.output
    assert told in done.output
