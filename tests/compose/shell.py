"""Commands of the machine: run, and told in one line when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def told(*command: str, folder: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """What `command` says. Raises `SystemExit` with its last lines if it fails."""
    ran = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        last = "\n".join((ran.stderr or ran.stdout).splitlines()[-15:])
        raise SystemExit(f"test-compose: `{' '.join(command)}` ended with {ran.returncode}:\n{last}")
    return ran.stdout
