from __future__ import annotations

from pathlib import Path

import pytest

from preceptor_trainer.whole import made_once


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    assert made_once(target, lambda path: path.write_text("first")) == target
    made_once(target, lambda path: path.write_text("second"))
    assert target.read_text() == "first"


def test_what_was_left_half_made_is_not_there_and_is_made_anew(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise OSError("no room")

    def make(path: Path) -> None:
        path.mkdir()
        (path / "whole").touch()

    with pytest.raises(OSError, match="no room"):
        made_once(target, fail)
    assert not target.exists()
    made_once(target, make)
    assert [path.name for path in target.iterdir()] == ["whole"]
