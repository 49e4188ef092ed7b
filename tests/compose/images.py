"""Base images for a Docker Engine that can pull nothing, made on this machine from Debian's packages.

In: names of images. Out: images of these names in the engine; one that is there, or can be pulled, is left as it is.
They stand in for the published ones in tests alone: they trust this machine's certificates, and are never to be pushed.
Needs root and debootstrap for those that it makes; about a minute each.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from compose.shell import ROOT, told

_SUITE = "bookworm"
"""Its Python is 3.11, as the images' is."""
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_USERS = {"redis": 999}
"""The user that the published image has, and its folder of data belongs to."""


def provide(name: str) -> str:
    """Have the image `name`. Returns how: `found`, `pulled` or `made`."""
    if _succeeds("docker", "image", "inspect", name):
        return "found"
    if _succeeds("docker", "pull", "--quiet", name):
        return "pulled"
    kind = name.partition(":")[0]
    if kind == "python":
        _import(name, ["python3", "python3-venv"], link_python=True)
    elif kind == "redis":
        _import(name, ["redis-server"])
    else:
        raise SystemExit(f"test-compose: {name} cannot be pulled, and there is no way to make it here")
    return "made"


def python_image() -> str:
    """The base that our Dockerfiles name."""
    names: set[str] = {
        found
        for path in (ROOT / "deploy" / "docker").glob("*.Dockerfile")
        for found in re.findall(r"^ARG PYTHON_IMAGE=(\S+)", path.read_text(), re.MULTILINE)
    }
    (name,) = names
    return name


def _import(name: str, packages: list[str], *, link_python: bool = False) -> None:
    """Make an image of Debian with `packages`."""
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        root = Path(folder) / "root"
        include = ",".join(["ca-certificates", "netbase", *packages])
        told("debootstrap", "--variant=minbase", f"--include={include}", _SUITE, str(root))
        shutil.copyfile(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n")
        if link_python:
            for link in ("python", "python3"):
                (root / "usr/local/bin" / link).symlink_to("/usr/bin/python3")
        for user, number in _USERS.items():
            if user in name:
                data = root / "data"
                data.mkdir()
                shutil.chown(data, number, number)
        for waste in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache"):
            shutil.rmtree(root / waste)
            (root / waste).mkdir()
        archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "import", "--change", 'CMD ["bash"]', "-", name],
            stdin=archive.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        if archive.wait():
            raise SystemExit(f"test-compose: the files of {name} could not be packed")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
