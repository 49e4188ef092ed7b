from __future__ import annotations

import logging
from pathlib import Path

import pytest

from preceptor_client.keys import KeysError, add_key, remove_key
from preceptor_services.keys import Caller, KeyRing
from preceptor_services.priority import Priority


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_key_is_its_callers(file: Path) -> None:
    alice = add_key(file, "alice", priority="training", tokens_per_minute=10, concurrency=2)
    bob = add_key(file, "bob")
    ring = KeyRing(file)
    assert ring.caller(alice) == Caller("alice", Priority.TRAINING, None, 10, 2)
    assert ring.caller(bob) == ring.named("bob") == Caller("bob", Priority.INTERACTIVE)
    assert {ring.caller(key) for key in ("", "x", alice[:-1], alice + "\n", "é\udcff")} == {None}


def test_a_change_counts_a_second_later(file: Path) -> None:
    clock = Clock()
    alice = add_key(file, "alice")
    ring = KeyRing(file, clock)
    bob = add_key(file, "bob")
    remove_key(file, "alice")
    assert ring.caller(alice) is not None
    clock.now = 1.0
    assert ring.caller(alice) is None
    assert ring.caller(bob) is not None


@pytest.mark.parametrize("broken", ["keys: [", None])
def test_a_file_that_breaks_changes_nothing_but_the_log(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    alice = add_key(file, "alice")
    ring = KeyRing(file, clock)
    intact = file.read_text()
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    for second in (1.0, 2.0):
        clock.now = second
        assert ring.caller(alice) is not None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the keys stay as they were" in caplog.text
    file.write_text(intact.replace("alice", "carol"))
    clock.now = 3.0
    assert ring.caller(alice) == Caller("carol", Priority.INTERACTIVE)


def test_a_file_that_others_can_read_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_key(file, "alice")
    KeyRing(file)
    assert not caplog.records
    file.chmod(0o644)
    KeyRing(file)
    assert "chmod 600" in caplog.text


def test_there_is_no_start_without_the_file(file: Path) -> None:
    with pytest.raises(KeysError, match="cannot read the keys file"):
        KeyRing(file)
