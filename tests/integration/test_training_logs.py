"""TensorBoard beside `metrics.jsonl`, written by real runs and read by its own reader."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from preceptor_trainer.errors import TrainError
from preceptor_trainer.run import run
from tiny_run import metrics, tiny_run

ALONE = {"objective": {"name": "nll"}, "pool": {"rollouts": 0}}


async def test_a_resumed_run_has_every_step_once_and_as_the_metrics_have_it(tmp_path: Path) -> None:
    build = tiny_run(tmp_path, "redis://none:1")
    settings = build(**ALONE, steps=4, checkpoint={"every": 2}, logging={"tensorboard": True})
    await run(settings)
    for lost in ("final", "checkpoints/step-00000004"):  # as after a kill
        shutil.rmtree(settings.out / lost)
    await run(build(**ALONE, steps=5, optimizer={"lr": 1e-3}, logging={"tensorboard": True}), "resume")
    events = EventAccumulator(str(settings.out / "tensorboard"))
    events.Reload()
    for name in ("loss", "lr", "grad_norm"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name])) for line in metrics(settings)]
    assert len(metrics(settings)) == 5


async def test_a_log_whose_package_is_missing_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = tiny_run(tmp_path, "redis://none:1")(**ALONE, logging={"wandb": {}}, model={"path": "nowhere"})
    with pytest.raises(TrainError, match=r"wandb is not installed: pip install 'preceptor\[wandb\]'"):
        await run(settings)
    assert not settings.out.exists()
