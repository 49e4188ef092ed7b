from __future__ import annotations

import ast
from pathlib import Path

import pytest

from preceptor_client.keys import key_hash, read_keys
from scripts import compose_env


def env_of(root: Path) -> dict[str, str]:
    lines = (root / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_services_know_the_keys_and_nobody_else_can_read_them(tmp_path: Path) -> None:
    assert compose_env.main(tmp_path) == 0
    secrets = tmp_path / "deploy/docker/secrets"
    entries = {key.name: key for key in read_keys(secrets / "keys.yaml").keys}
    env = env_of(tmp_path)
    assert entries["local"].hash == key_hash(env["PRECEPTOR_API_KEY"])
    assert entries["trainer"].hash == key_hash(env["PRECEPTOR_TRAINER_KEY"])
    assert entries["trainer"].priority == "training"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets / "keys.yaml").stat().st_mode & 0o777 == 0o644, "for the containers' user"
    assert len((secrets / "grafana-password").read_text()) >= 24


def test_two_checkouts_share_no_secret(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert compose_env.main(tmp_path / name) == 0
    one, two = (env_of(tmp_path / name) for name in ("one", "two"))
    assert one["PRECEPTOR_API_KEY"] != two["PRECEPTOR_API_KEY"]


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    compose_env.main(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert compose_env.main(tmp_path) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_keys_without_their_hashes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose_env.main(tmp_path)
    (tmp_path / "deploy/docker/secrets/keys.yaml").unlink()
    assert compose_env.main(tmp_path) == 1
    assert "one is missing: remove the other one" in capsys.readouterr().err


def test_the_python_of_older_systems_is_enough() -> None:
    parsed = ast.parse(Path(compose_env.__file__).read_text(), feature_version=(3, 9))
    imported = [alias.name for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert "UTC" not in imported, "of Python 3.11"
