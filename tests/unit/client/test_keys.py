from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import pytest

from preceptor_client.cli.main import run
from preceptor_client.keys import KeysError, add_key, key_hash, read_keys, remove_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "keys.yaml"


def test_the_file_holds_no_key_and_is_for_its_owner_only(file: Path) -> None:
    key = add_key(file, "alice", priority="bulk", requests_per_minute=60)
    assert len(key) > 40
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    (entry,) = read_keys(file).keys
    assert (entry.name, entry.priority, entry.requests_per_minute, entry.tokens_per_minute) == (
        "alice",
        "bulk",
        60,
        None,
    )
    assert entry.hash == key_hash(key)


def test_keys_come_and_go_and_nothing_stays_behind(file: Path) -> None:
    assert add_key(file, "alice") != add_key(file, "bob")
    file.chmod(0o640)
    remove_key(file, "alice")
    assert [key.name for key in read_keys(file).keys] == ["bob"]
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["keys.yaml"]


def test_a_name_is_given_once(file: Path) -> None:
    add_key(file, "alice")
    with pytest.raises(KeysError, match="has a key 'alice' already"):
        add_key(file, "alice")
    with pytest.raises(KeysError, match="has no key 'eve'; it has alice"):
        remove_key(file, "eve")
    with pytest.raises(KeysError, match="take another name"):
        add_key(file, "anonymous")


def test_of_writers_at_once_none_undoes_another(file: Path) -> None:
    added: list[str] = []

    def add(name: str) -> None:
        for _ in range(200):
            with suppress(KeysError):
                add_key(file, name)
                added.append(name)
                return

    threads = [threading.Thread(target=add, args=(f"k{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(file).keys) == sorted(added)
    assert added
    assert [path.name for path in file.parent.iterdir()] == ["keys.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("keys: [{name: a", "is not YAML"),
        ("\xff", "does not hold"),
        ("keys:\n- {name: a, hash: 'plain', created_at: 2026-01-01T00:00:00Z}", "keys.0.hash"),
        ("keys:\n- {name: a, priority: urgent}", "keys.0.priority"),
        ("keyz: []", "keyz: there is no such key"),
        (
            "keys:\n"
            + "".join(f"- {{name: a, hash: 'sha256:{d * 64}', created_at: 2026-01-01T00:00:00Z}}\n" for d in "01"),
            "names of keys must differ",
        ),
    ],
)
def test_a_file_that_does_not_hold_is_told_with_its_place(file: Path, content: str, message: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(KeysError, match=message) as found:
        read_keys(file)
    assert str(file) in str(found.value)


def test_the_commands_print_a_key_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--file", str(file)]
    assert run(["keys", "add", "guest", *where, "--priority", "training", "--tokens-per-minute", "1000"]) == 0
    key = capsys.readouterr().out.strip()
    assert read_keys(file).keys[0].hash == key_hash(key)
    assert run(["keys", "list", *where]) == 0
    assert run(["keys", "list", *where, "--json"]) == 0
    shown = capsys.readouterr().out
    assert "guest" in shown
    assert "1,000" in shown
    assert key not in shown
    assert key_hash(key) not in shown
    assert run(["keys", "remove", "guest", *where]) == 0
    assert run(["keys", "remove", "guest", *where]) == 1
    assert run(["keys", "add", "guest", *where, "--priority", "urgent"]) == 2
    assert "Traceback" not in capsys.readouterr().err
