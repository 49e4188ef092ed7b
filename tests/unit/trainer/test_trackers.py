"""Training logs: the lines of metrics.jsonl elsewhere. W&B and trackio are tried where they are installed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.trackers.backends import public
from preceptor_trainer.trackers.config import LoggingConfig
from preceptor_trainer.trackers.trackers import Trackers, check_installed, figures_of


def config(out: Path, **logging: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "out": out,
            "run": "my-run",
            "steps": 9,
            "model": {"path": "m"},
            "data": {"path": "d"},
            "pool": {"rollouts": 2},
            "judge": {"redis_url": "redis://:secret@host"},
            "rewrite": {"api_key": "secret"},
            "logging": logging,
        }
    )


def lines(*steps: int, part: float = 0.0) -> list[dict[str, Any]]:
    return [{"step": step, "loss": step + part, "judge": {"calls": 10 * step}} for step in steps]


def part(settings: TrainConfig, done: int, told: Iterable[dict[str, Any]]) -> None:
    """One part of a run, after `done` steps."""
    with Trackers(settings, done) as trackers:
        for line in told:
            trackers.tell(line)


def read(out: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_shows_every_figure_by_its_path(tmp_path: Path) -> None:
    part(config(tmp_path, tensorboard=True), 0, lines(1, 2, 3))
    assert read(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert read(tmp_path, "judge/calls") == [(1, 10.0), (2, 20.0), (3, 30.0)]


def test_a_resume_goes_on_in_tensorboard_and_what_came_after_the_checkpoint_is_told_anew(tmp_path: Path) -> None:
    settings = config(tmp_path, tensorboard=True)
    part(settings, 0, lines(1, 2, 3, 4))
    part(settings, 2, [*lines(1, 2), *lines(3, 4, 5, part=0.5)])
    assert read(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5), (5, 5.5)]


def test_tensorboard_turned_on_with_a_resume_has_the_earlier_steps_too(tmp_path: Path) -> None:
    part(config(tmp_path), 0, lines(1, 2))
    part(config(tmp_path, tensorboard=True), 2, lines(1, 2, 3))
    assert read(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_run_that_begins_again_begins_there_as_well(tmp_path: Path) -> None:
    settings = config(tmp_path, tensorboard=True)
    part(settings, 0, lines(1, 2, 3))
    before = json.loads((tmp_path / "trackers.json").read_text())
    part(settings, 0, lines(1, part=0.5))
    assert read(tmp_path, "loss") == [(1, 1.5)]
    after = json.loads((tmp_path / "trackers.json").read_text())
    assert after["id"] != before["id"]
    assert after["told"] == {"tensorboard": 1}


class Kept:
    """A tracker that cannot take back a step."""

    takes_back = False
    opened: list[tuple[str, int]] = []  # noqa: RUF012
    logged: list[tuple[int, float]] = []  # noqa: RUF012

    def __init__(self, config: TrainConfig, id: str, done: int) -> None:
        self.opened.append((id, done))

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.logged.append((step, figures["loss"]))

    def close(self, *, failed: bool) -> None:
        pass


def test_what_cannot_take_back_a_step_is_told_none_twice_over_any_number_of_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor_trainer.trackers.trackers.BACKENDS", {"wandb": Kept})
    monkeypatch.setattr(Kept, "opened", [])
    monkeypatch.setattr(Kept, "logged", [])
    settings = config(tmp_path, wandb={})
    part(settings, 0, lines(1, 2, 3, 4))
    part(settings, 2, [*lines(1, 2), *lines(3, part=0.5)])
    part(settings, 2, [*lines(1, 2), *lines(3, 4, 5, part=0.7)])
    assert Kept.logged == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.7)]
    assert len({id for id, _ in Kept.opened}) == 1


def test_numbers_are_told_by_their_path_and_nothing_else() -> None:
    line = {"step": 3, "loss": 1.5, "events": {}, "scores": {"quality": {"all": 0.5}}, "guards": {"kl": None}}
    assert figures_of(line) == {"loss": 1.5, "scores/quality/all": 0.5}


def test_keys_and_passwords_are_told_to_nobody(tmp_path: Path) -> None:
    told = public(config(tmp_path))
    assert "secret" not in json.dumps(told)
    assert (told["run"], told["pool"]["rollouts"]) == ("my-run", 2)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_package_that_is_missing_is_told_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainError, match=rf"{name} is not installed: pip install 'preceptor\[{name}\]'"):
        check_installed(LoggingConfig.model_validate({name: True if name == "tensorboard" else {}}))
    check_installed(LoggingConfig())


def test_a_folder_of_a_packages_name_is_not_the_package(tmp_path: Path) -> None:
    """W&B leaves a folder `wandb` behind where it ran; this stands before all that is installed."""
    (tmp_path / "wandb").mkdir()
    code = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + ["."]
import importlib.util
print(importlib.util.find_spec("wandb").origin)"""
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_wandb_has_every_step_once_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="preceptor[wandb] is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = config(tmp_path, wandb={"offline": True})
    part(settings, 0, lines(1, 2, 3))
    part(settings, 2, [*lines(1, 2), *lines(3, 4, part=0.5)])
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name, "both parts are one run"
    assert [*wandb_rows(first), *wandb_rows(second)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]
    assert b"secret" not in first.read_bytes() + second.read_bytes()


def wandb_rows(path: Path) -> list[tuple[int, float]]:
    """What an offline file holds for the upload: records in the framing of LevelDB's log, after a header."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record, rows = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            read_record = Record.FromString(record)
            record = b""
            if read_record.WhichOneof("record_type") == "history":
                row = {item.key or ".".join(item.nested_key): item.value_json for item in read_record.history.item}
                rows.append((int(row["_step"]), float(row["loss"])))
    return rows


def test_trackio_has_every_step_once_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="preceptor[trackio] is not installed")
    from trackio.sqlite_storage import SQLiteStorage

    settings = config(tmp_path, trackio={"project": "p"})
    part(settings, 0, lines(1, 2, 3))
    part(settings, 2, [*lines(1, 2), *lines(3, 4, part=0.5)])
    [run] = SQLiteStorage.get_runs("p")
    logged = SQLiteStorage.get_logs("p", run)
    assert [(row["step"], row["loss"]) for row in logged] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]
