"""A Docker Engine with compose, for as long as a test lasts.

In: a folder for the engine's data. Out: the environment in which `docker` works. An engine that answers is used as it
is. Otherwise one is started for this process alone, with its data, its socket and its plugins in the folder, and ended
with it; what Debian packages that takes are installed (root). It has neither bridge nor firewall rules: builds use the
machine's network (tests/compose/override.yml), containers have their own networks and published ports, and no way out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compose.shell import told

_PROGRAMS = {"docker": "docker.io", "dockerd": "docker.io", "docker-proxy": "docker.io", "runc": "runc"}
_MADE_WITH = {"debootstrap": "debootstrap", "iptables": "iptables"}
_PLUGINS = {"compose": "docker-compose", "buildx": "docker-buildx"}
_PLUGINS_SUITE = "trixie"
"""Bookworm has no compose v2."""
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_READY_S = 60.0


@contextmanager
def engine(folder: Path, *, keep: bool) -> Iterator[None]:
    """Have an engine; `keep` leaves the images of one that is started here for the next time."""
    if _answers():
        yield
        return
    if os.geteuid() != 0:
        raise SystemExit("test-compose: no Docker Engine answers: start one, or run this as root to have one started")
    _install({**_PROGRAMS, **_MADE_WITH})
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    os.environ["DOCKER_CONFIG"] = str(folder / "config")
    _fetch_plugins(folder)
    with _daemon(folder):
        yield
    if not keep:
        shutil.rmtree(folder)


@contextmanager
def _daemon(folder: Path) -> Iterator[None]:
    """dockerd in `folder`, until the block is left."""
    command = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/docker.pid", "--host", os.environ["DOCKER_HOST"]]
    command += ["--storage-driver=overlay2", "--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + _READY_S
        while not _answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"test-compose: dockerd does not start, see {folder}/dockerd.log")
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _install(programs: dict[str, str]) -> None:
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if missing:
        told("apt-get", "update", "-q")
        told(
            *("apt-get", "install", "-yq", "--no-install-recommends", *missing),
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )


def _fetch_plugins(folder: Path) -> None:
    """compose and buildx from the next Debian, by an apt that leaves the machine's own alone."""
    plugins = folder / "config" / "cli-plugins"
    missing = [package for name, package in _PLUGINS.items() if not (plugins / f"docker-{name}").exists()]
    if not missing:
        return
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "unpacked"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    mirror = told("apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian").split()[0]
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {_PLUGINS_SUITE} main\n")
    options = [f"Dir::Etc::SourceList={apt}/sources.list", "Dir::Etc::SourceParts=-", f"Dir::State::Lists={apt}/lists"]
    options += [f"Dir::Cache={apt}/cache", "APT::Sandbox::User=root"]
    private = [word for option in options for word in ("-o", option)]
    told("apt-get", *private, "update", "-q")
    told("apt-get", *private, "download", "-q", *missing, folder=apt)
    plugins.mkdir(parents=True, exist_ok=True)
    for package in apt.glob("*.deb"):
        told("dpkg-deb", "-x", str(package), str(apt / "unpacked"))
    for plugin in (apt / "unpacked").glob("usr/libexec/docker/cli-plugins/*"):
        shutil.copy2(plugin, plugins)
    shutil.rmtree(apt)
