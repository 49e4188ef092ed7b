"""`preceptor demo` as a person runs it: the whole method for real, and what is left when it has ended."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes and ports through /proc"),
]

COMMAND = [sys.executable, "-m", "preceptor_trainer", "demo", "--report"]
AXES = ("quality", "safety", "factuality")
PARTS = 5
"""Redis, vLLM, judge, rewrite, worker: each listens on a port."""
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def adopted() -> Iterator[set[int]]:
    """This process's children before the test. Whatever a child leaves behind becomes a child of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield descendants(os.getpid())
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants(pid: int) -> set[int]:
    """Its children, theirs, and so on, without those that have ended and were not waited for."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        of_one = children.get(unseen.pop(), [])
        found.update(of_one)
        unseen += of_one
    return found


def listening() -> set[str]:
    """The inodes of all listening sockets on this machine."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {fields[9] for fields in lines if fields[3] == "0A"}


def listening_of(pids: set[int]) -> set[str]:
    """The inodes of the sockets that these processes listen on."""
    held: set[str] = set()
    for pid in pids:
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process, or one of its files, is gone
        held.update(link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:["))
    return held & listening()


@contextmanager
def running_demo(report: Path, stderr: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that leads a session of its own, as in a terminal; ended if the test fails."""
    with (
        stderr.open("w") as errors,
        subprocess.Popen(
            [*COMMAND, str(report)], stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=120)


def test_the_demo_shows_that_the_method_works_and_leaves_nothing_behind(tmp_path: Path, adopted: set[int]) -> None:
    folder, stderr = tmp_path / "report", tmp_path / "stderr"
    ports: set[str] = set()
    output = []
    with running_demo(folder, stderr) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            ports |= listening_of(descendants(process.pid))
        status = process.wait(timeout=60)
        left = descendants(os.getpid()) - adopted
    assert status == 0, stderr.read_text() + "".join(output)
    assert left == set()
    assert len(ports) >= PARTS
    assert not ports & listening()

    report = json.loads((folder / "report.json").read_text())
    assert 0 < report["wall_s"] < 1500
    for axis in AXES:
        assert report["teacher"][axis]["accuracy"] >= 0.90, axis
    assert report["axes"]["factuality"]["relative_gain"] > 0.362
    assert report["axes"]["safety"]["relative_gain"] > 0.185
    for rival in ("nll", "base"):
        assert report[f"win_rate_vs_{rival}"]["ci95"][0] > 0.5, rival
    assert report["judge"]["failed"] == 0
    assert report["judge"]["calls"] > 0
    for share in report["origin_share"]:
        assert sum(share[origin] for origin in ("original", "rewrite", "rollout")) == pytest.approx(1)
    assert {path.name for path in folder.iterdir()} >= {
        "report.md",
        "samples.jsonl",
        "axes.png",
        "training.png",
        "origins.png",
    }


def test_ctrl_c_while_the_services_start_leaves_nothing_behind(
    tmp_path: Path, adopted: set[int], nano_teacher_dir: Path
) -> None:
    folder, stderr = tmp_path / "report", tmp_path / "stderr"
    log = folder / "services" / "teacher" / "teacher.log"
    with running_demo(folder, stderr) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("teacher: done")), None)
        assert line, stderr.read_text()
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size):  # vLLM has begun to speak: Redis is there, the rest is not
            assert process.poll() is None, stderr.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        parts = descendants(process.pid)
        ports = listening_of(parts)
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        status = process.wait(timeout=120)
        left = descendants(os.getpid()) - adopted
    assert len(parts) >= 2, "Redis and vLLM"
    assert ports, "Redis's"
    assert status == 130
    assert stderr.read_text().splitlines() == ["preceptor demo: stopped; nothing is left running"]
    assert left == set()
    assert not ports & listening()
