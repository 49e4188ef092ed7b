from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor_client.config import ConfigError, dump_config, load_config
from preceptor_client.masking import REVEALED
from preceptor_client.settings import ClientSettings
from preceptor_trainer.config import ENV_PREFIX, RewriteConfig, TrainConfig

SMALLEST: dict[str, Any] = {
    "out": "runs/x",
    "steps": 10,
    "model": {"path": "policy"},
    "data": {"path": "documents.jsonl"},
    "pool": {"rollouts": 4},
}

SAFE = "{token: <safe>, share: 0.5, axes: {safety: 1.0}}"
RAW = "{token: <raw>, share: 0.5, prefer: [original, rollout]}"
MIXTURE = "--data={path: '', mixture: [{path: a}, {path: b}]}"


def load(tmp_path: Path, *overrides: str, **values: Any) -> TrainConfig:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump({**SMALLEST, **values}))
    return load_config(TrainConfig, file, overrides, env_prefix=ENV_PREFIX)


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load(tmp_path, "--objective.name=grpo", "--judge.axes={safety: 2.0}", "--judge.sampling.votes=1")
    file = tmp_path / "again.yaml"
    file.write_text(dump_config(config))
    assert load_config(TrainConfig, file, env_prefix=ENV_PREFIX) == config


SECRETS = ("--judge.redis_url=redis://:hunter2@h:1/0", "--rewrite.api_key=hunter3", "--rewrite.url=http://u:hunter4@h")


def test_the_saved_configuration_takes_its_secrets_from_the_command_line_again(tmp_path: Path) -> None:
    config = load(tmp_path, *SECRETS)
    file = tmp_path / "again.yaml"
    file.write_text(dump_config(config))
    assert "hunter" not in file.read_text()
    with pytest.raises(ConfigError, match=r"judge.redis_url: .*give it again[^$]*rewrite.api_key: .*give it again"):
        load_config(TrainConfig, file, env_prefix=ENV_PREFIX)
    assert load_config(TrainConfig, file, SECRETS, env_prefix=ENV_PREFIX) == config


def test_the_other_ranks_get_the_secrets(tmp_path: Path) -> None:
    config = load(tmp_path, *SECRETS)
    assert TrainConfig.model_validate_json(config.model_dump_json(context=REVEALED)) == config


def test_environment_lies_between_file_and_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPTOR_TRAIN_OPTIMIZER__LR", "0.5")
    monkeypatch.setenv("PRECEPTOR_TRAIN_STEPS", "20")
    config = load(tmp_path, "--steps=30", optimizer={"lr": 0.1, "clip": 2.0})
    assert (config.optimizer.lr, config.optimizer.clip, config.steps) == (0.5, 2.0, 30)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--objective.nmae=dpo"], "objective.nmae"),
        (["--objective.name=ppo"], "objective.name"),
        (["--pool={rollouts: 1, original: false}"], r"dpo chooses between candidates and the pool has 1"),
        (["--pool.rollouts=64"], r"at most 64 candidates and the pool has 65"),
        (["--objective.name=nll"], r"nll trains on one original a prefix .*set pool to that alone, {original: true}"),
        (["--objective.name=nll", "--objective.target=rollout"], r"alone, {original: false, rollouts: 1}"),
        (["--objective.name=nll", "--objective.target=thought"], r"objective.target"),
        (["--objective.prefer=[rewrite, rollout]"], r"compares rewrite with rollout: the pool needs both"),
        (["--objective.prefer=[rollout, rollout]"], r"objective: .*names two origins"),
        (["--objective.name=grpo", "--objective.prefer=[original, rollout]"], r"prefer is for dpo"),
        (["--pool.controller={}", "--pool.rollouts=0", "--pool.rewrite=true"], r"set pool.rollouts, ask judges"),
        (["--pool.controller={}", "--objective.prefer=[original, rollout]"], r"ask judges"),
        (["--pool.controller={}", "--pool.original=false"], r"begins with one rollout alone: set pool.original"),
        (["--controls=[{token: a, share: 0.5, axes: {safety: 1}}]"], "name two or more"),
        ([f"--controls=[{SAFE}, {SAFE}]"], "each with a token of its own"),
        (
            [f"--controls=[{SAFE}, {{token: b, share: 0.4, axes: {{quality: 1}}}}]"],
            r"add up to 0.9: they have to make 1",
        ),
        ([f"--controls=[{SAFE}, {{token: b, share: 0.5}}]"], r"control b needs axes, or else prefer"),
        ([f"--controls=[{SAFE}, {{token: b c, share: 0.5, axes: {{quality: 1}}}}]"], r"controls.1.token"),
        ([f"--controls=[{SAFE}, {{token: b, share: 0.5, prefer: [rollout, rollout]}}]"], "names two origins"),
        ([f"--controls=[{SAFE}, {RAW}]", "--objective.name=grpo"], r"grpo needs scores: give control <raw> axes"),
        ([f"--controls=[{SAFE}, {RAW}]", "--pool.original=false"], r"<raw> compares original with rollout: the pool"),
        ([f"--controls=[{SAFE}, {RAW}]", "--pool.controller={}"], r"counts what judges choose"),
        ([f"--controls=[{SAFE}, {RAW}]", "--objective.prefer=[original, rollout]"], r"dpo, rf_nll or grpo, without"),
        ([f"--controls=[{SAFE}, {RAW}]", "--objective.name=nll", "--pool.rollouts=0"], r"dpo, rf_nll or grpo"),
        (["--data.min_prefix_tokens=9", "--data.prefix_tokens=8"], r"min_prefix_tokens \(9\) is above prefix_tokens"),
        (["--optimizer.warmup_steps=11"], r"warmup_steps is above steps"),
        (["--optimizer.betas=[0.9, 1.0]"], r"optimizer.betas.1"),
        (["--judge.axes={}"], "judge.axes"),
        (["--judge.axes.quality=2000"], "judge.axes.quality"),
        (["--judge.rubrics={fun: own/fun}"], r"judge.rubrics names fun, which is not judged: set its weight"),
        (["--thoughts={}"], r"thoughts: the original has none .*set pool.original=false"),
        (
            ["--thoughts={open: '<t>', close: '<t>'}", "--pool.original=false"],
            r"thoughts: .*open and close are both <t>",
        ),
        (["--thoughts.max_tokens=2", "--pool.original=false"], r"thoughts.max_tokens"),
        (["--run=no spaces"], "run"),
        (["--guards.entropy={}"], r"guards.entropy: .*a guard needs a limit: set one of above, below, rise, fall"),
        (["--guards.abstention={}"], r"a guard needs a limit: set one of above, below$"),
        (["--guards.abstention.rise=0.1"], "guards.abstention.rise"),
        (["--guards.length={fall: 0.5, warn_after: 7}"], r"warn_after \(7\) is above act_after \(6\)"),
        (
            ["--guards.length.fall=0.5", "--pool={rewrite: true, rollouts: 0}"],
            r"guards.length watches rollouts, and pool.rollouts is 0",
        ),
        (
            ["--guards.abstention.above=0.5", "--objective.name=nll", "--pool={rollouts: 0}"],
            r"guards.abstention watches what judges have answered, and none is asked",
        ),
        (
            ["--guards.entropy.fall=0.5", "--objective.prefer=[original, rollout]"],
            r"guards.entropy watches what judges have answered, and none is asked",
        ),
        (["--guards.held_out_nll.rise=0.1"], r"would read what is trained on \(documents.jsonl\)"),
        (["--guards.held_out_nll={rise: 0.1, split: test}"], "would read what is trained on"),
        ([MIXTURE, "--guards.held_out_nll.rise=0.1"], r"would read what is trained on \(a, b\): set its path"),
        ([MIXTURE, "--guards.held_out_nll={rise: 0.1, split: test}"], r"set its path"),
    ],
)
def test_what_does_not_fit_is_told_by_key(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, *overrides)


def test_the_baseline_needs_no_judge(tmp_path: Path) -> None:
    assert not load(tmp_path, "--objective.name=nll", "--pool.rollouts=0").judged
    assert not load(tmp_path, "--objective.prefer=[original, rollout]").judged
    assert load(tmp_path).judged


def test_the_configuration_imports_without_torch() -> None:
    code = "import sys, preceptor_trainer.config, preceptor_trainer.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=[file.name for file in CONFIGS])
def test_the_configurations_that_come_with_the_project_load(file: Path) -> None:
    assert load_config(TrainConfig, file, env_prefix=ENV_PREFIX).run


def test_the_rewrite_service_is_looked_for_where_the_local_stack_has_it() -> None:
    assert RewriteConfig().url == ClientSettings.model_fields["rewrite_url"].default


def test_held_out_documents_are_where_the_guard_says_and_else_as_those_of_the_run(tmp_path: Path) -> None:
    config = load(tmp_path, "--guards.held_out_nll={rise: 0.1, path: other.jsonl}", "--data.text_field=body")
    assert config.guards.held_out_nll is not None
    data = config.held_out(config.guards.held_out_nll)
    assert (data.source, data.path, data.text_field, data.epochs) == ("jsonl", "other.jsonl", "body", 1)
    split = {"data": {"source": "huggingface", "path": "x"}, "guards": {"held_out_nll": {"above": 3, "split": "test"}}}
    assert load(tmp_path, **split).guards.on.keys() == {"held_out_nll"}
