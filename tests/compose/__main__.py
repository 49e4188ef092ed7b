"""`make test-compose`: builds every image, brings the stack up, uses it, kills every part of it once, and audits.

    python -m compose [--folder DIR] [--keep] [--json FILE]     (PYTHONPATH=tests:. ; as root)

On a fresh Debian machine it installs what it needs, runs a Docker Engine of its own if none answers, and makes the base
images that cannot be pulled. Out: a line a stage on stderr, a report as JSON; exit status 0 only if nothing was lost:
every cohort that was issued ended once, every batch item has its verdicts, the queue is empty, the run's steps are all
there, and `down -v` left nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos_parts.progress import Watch, count
from compose.audit import audit
from compose.engine import engine
from compose.images import provide, python_image
from compose.shell import ROOT, told
from compose.stack import SERVERS, ComposeStack, until
from compose.traffic import BATCH_ITEMS, Traffic
from preceptor_client.stack import claim_port
from preceptor_trainer.ledger import LEDGER_FILE
from preceptor_trainer.nano import DEFAULT_CACHE
from preceptor_trainer.nano.teacher import Recipe, content_hash
from preceptor_trainer.telemetry import METRICS_FILE
from scripts import compose_env

OURS = ("preceptor/services", "preceptor/trainer", "preceptor/vllm-cpu")
KILLED = ("worker", "judge", "rewrite", "redis", "policy", "teacher", "trainer")
CONTAINERS_USER = "10001:10001"
_ENDLESS = 100_000
_WHEELS_PORT = 18999
"""Always the same: it is an argument of the builds, which find their cache by it."""
_LAST_STEPS = 5
"""After the last kill: more than are in flight, so that the end has to be exact."""
_PREPARED_S, _READY_S, _RESTARTED_S, _STEPS_S = 1800, 900, 600, 600


class Report:
    """What was done, and how long it took."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"seconds": {}}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        began = time.monotonic()
        yield
        seconds = round(time.monotonic() - began, 1)
        self.values["seconds"][name] = seconds
        print(f"test-compose: {name}: {seconds} s", file=sys.stderr, flush=True)


def main() -> int:
    """Run everything. Returns the exit status."""
    parser = argparse.ArgumentParser("make test-compose")
    parser.add_argument(
        "--folder", type=Path, help="where the engine and its images are [default: a new one in /var/tmp]"
    )
    parser.add_argument("--keep", action="store_true", help="keep them for the next time; give --folder too")
    parser.add_argument("--json", type=Path, help="also write the report there")
    parser.add_argument(
        "--kill", type=lambda text: text.split(","), default=KILLED, help="[default: {}]".format(",".join(KILLED))
    )
    options = parser.parse_args()
    report = Report()
    with ExitStack() as resources:
        folder = options.folder or Path(tempfile.mkdtemp(prefix="preceptor-compose-", dir="/var/tmp"))
        with report.stage("engine"):
            resources.enter_context(engine(folder.resolve(), keep=options.keep))
        work = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="preceptor-compose-")))
        with report.stage("base images"):
            report.values["base images"] = {name: provide(name) for name in (python_image(), _redis_image())}
        stack = ComposeStack(_environment(work, resources))
        try:
            exercise(stack, options.kill, report)
        except SystemExit:
            print(stack.compose("ps", "--all"), stack.compose("logs", "--tail", "30"), sep="\n", file=sys.stderr)
            raise
        finally:
            with report.stage("down"):
                stack.compose("down", "--volumes", "--timeout", "20")
        report.values["left by down -v"] = stack.remains()
    text = json.dumps(report.values, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    good = not report.values["lost"] and not report.values["left by down -v"]
    return 0 if good else 1


def exercise(stack: ComposeStack, killed: Sequence[str], report: Report) -> None:
    """Build, up, use, kill, end, audit."""
    with report.stage("build"):
        stack.compose("build")
    report.values["image MB"] = {name: stack.image_mb(f"{name}:0.1.0") for name in OURS}
    with report.stage("prepare"):
        stack.compose("up", "--detach", "--no-build", "prepare")
        prepared = stack.wait("prepare", lambda state: state.status == "exited", "ends", within_s=_PREPARED_S)
        if prepared.exit_code:
            raise SystemExit(f"test-compose: prepare ended with {prepared.exit_code}:\n{stack.logs('prepare')}")
    with report.stage("up"):
        stack.compose("up", "--detach", "--no-build")
        for service in (*SERVERS, "trainer"):
            stack.wait(service, lambda state: state.well, "is well", within_s=_READY_S)
    out = stack.volume("runs") / "sip"
    traffic = Traffic(stack.env, stack.volume("models") / "data" / "held-out.jsonl")
    with report.stage("judge from outside"):
        report.values["verdicts"] = traffic.judge_one()
        traffic.is_refused_without_a_key()
    with report.stage("first steps"):
        _steps(stack, out, 3)
    traffic.submit_batch()
    for service in killed:
        with report.stage(f"kill {service}"), traffic.flowing(when=service == "judge"):
            before = stack.kill(service)
            stack.wait(
                service,
                lambda state, before=before: state.restarts > before.restarts and state.well,  # type: ignore[misc]
                "is restarted and well",
                within_s=_RESTARTED_S,
            )
            _steps(stack, out, 2)
    with report.stage("last steps"):
        stack.compose("stop", "trainer")
        steps = count(out / METRICS_FILE, b"\n") + _LAST_STEPS
        stack.env["PRECEPTOR_TEST_STEPS"] = str(steps)
        stack.compose("up", "--detach", "--no-build", "--no-deps", "trainer")
        ended = stack.wait("trainer", lambda state: state.status == "exited", "ends", within_s=_STEPS_S)
        if ended.exit_code:
            raise SystemExit(f"test-compose: the trainer ended with {ended.exit_code}:\n{stack.logs('trainer')}")
    with report.stage("audit"):
        queue = json.loads(
            stack.compose(
                "exec", "-T", "worker", "preceptor", "queue", "status", "--json", "--redis", "redis://redis:6379/0"
            )
        )
        findings = audit(out, stack.volume("models"), steps, queue, traffic.account())
        report.values |= {
            "steps": steps,
            "cohorts ended": count(out / LEDGER_FILE, b"\n"),
            "batch items": BATCH_ITEMS,
            "lost": {kind: found for kind, found in vars(findings).items() if found},
            "summary": json.loads((out / "summary.json").read_text()),
        }


def _steps(stack: ComposeStack, out: Path, number: int) -> None:
    """Wait for so many further steps of the run."""
    watch = Watch(lambda: count(out / METRICS_FILE, b"\n"))
    until(
        lambda: watch.grown() >= number,
        f"{number} further steps",
        within_s=_STEPS_S,
        tell=lambda: stack.logs("trainer"),
    )


def _redis_image() -> str:
    """The image that the compose file names."""
    lines = (ROOT / "docker-compose.yml").read_text().splitlines()
    (name,) = (line.split()[-1] for line in lines if line.strip().startswith("image: redis:"))
    return name


def _environment(work: Path, resources: ExitStack) -> dict[str, str]:
    """What compose reads: keys and passwords, free ports, where the wheels are."""
    if compose_env.main(work):
        raise SystemExit("test-compose: no secrets")
    values = dict(line.split("=", 1) for line in (work / ".env").read_text().splitlines() if not line.startswith("#"))
    values |= {
        "COMPOSE_PROFILES": "",
        "PRECEPTOR_JUDGE_PORT": str(claim_port()),
        "PRECEPTOR_REWRITE_PORT": str(claim_port()),
        "PRECEPTOR_TEST_STEPS": str(_ENDLESS),
        "PRECEPTOR_TEST_CACHE": str(_teacher_cache(work / "cache")),
        "PRECEPTOR_TEST_SECRETS": str(work / "deploy" / "docker" / "secrets"),
    }
    if not values["PIP_EXTRA_INDEX_URL"]:
        values["PIP_FIND_LINKS"] = _serve_torch(work / "wheels", resources)
    return values


def _teacher_cache(folder: Path) -> Path:
    """Where a container finds the nano teacher, if this machine has trained it, and keeps it otherwise."""
    name = f"nano-teacher-{content_hash(Recipe())}"
    if (DEFAULT_CACHE / name).is_dir():
        shutil.copytree(DEFAULT_CACHE / name, folder / name)
    folder.mkdir(exist_ok=True)
    told("chown", "-R", CONTAINERS_USER, str(folder))
    return folder


def _serve_torch(folder: Path, resources: ExitStack) -> str:
    """Where builds find the CPU build of torch: taken by this machine's pip, wherever that finds it."""
    pinned = (ROOT / "requirements" / "torch.txt").read_text().split()[-1]
    told(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), f"{pinned}+cpu")
    port = claim_port(_WHEELS_PORT)
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    resources.callback(server.wait)
    resources.callback(server.terminate)
    return f"http://127.0.0.1:{port}/"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("test-compose: stopped", file=sys.stderr)
        sys.exit(130)
