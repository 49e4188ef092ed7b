"""Two ranks on the CPU, started by torchrun, against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from preceptor_trainer.errors import TrainError
from preceptor_trainer.ranks import Ranks
from ranks_update import ALL, CASES, HALF, figures, keep, learner, restore, train

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `ranks_update.py` has filled; its case `resumed` began with half a run of one rank."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.set_num_threads(1)
    trainer = learner(CASES["resumed"])
    train(CASES["resumed"], trainer, HALF)
    keep(folder / "resumed-start", trainer)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, str(TESTS / "ranks_update.py"), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_have_the_losses_and_the_weights_of_one(two_ranks: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    trainer = learner(case)
    alone = figures(train(case, trainer, ALL))
    keep(tmp_path / name, trainer)
    together = json.loads((two_ranks / f"{name}.json").read_text())
    for one, two in zip(alone[-len(together) :], together, strict=True):
        if name == "bfloat16":
            assert two["loss"] == pytest.approx(one["loss"], rel=0.05)
        else:
            assert two == pytest.approx(one, rel=2e-4, abs=2e-5)
    assert len({round(each["loss"], 3) for each in together}) > 1, "it learned"
    for file in ("model.safetensors", "trainer.tensors"):
        one, two = (load_file(folder / name / file) for folder in (tmp_path, two_ranks))
        assert one.keys() == two.keys()
        if name != "bfloat16":
            for key, values in one.items():
                assert (values - two[key]).abs().max() <= 2e-4 * values.abs().max() + 1e-5, key


def test_what_two_ranks_kept_one_goes_on_from(two_ranks: Path) -> None:
    case = CASES["dpo"]
    trainer = learner(case)
    restore(two_ranks / "dpo-half", trainer, HALF)
    together = json.loads((two_ranks / "dpo.json").read_text())
    for one, two in zip(figures(train(case, trainer, ALL)), together[HALF:], strict=True):
        assert one == pytest.approx(two, rel=2e-4, abs=2e-5)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2"}, "KeyError: 'RANK'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "ValueError: .*MASTER_ADDR"),
        ({"WORLD_SIZE": "two"}, "ValueError: .*'two'"),
    ],
)
def test_an_environment_that_is_not_torchruns_is_told(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match=rf"{said}.*: start them by torchrun, or one alone without WORLD_SIZE"):
        Ranks.join()
