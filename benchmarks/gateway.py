"""The judge service next to LiteLLM's proxy.

    preceptor bench gateway --json
    preceptor bench gateway --rounds 5 --seconds 10

**Measured:** what stands between a caller and the engine, in front of an engine that costs next to nothing and answers
at once or after 50 ms. A request to us judges one candidate on one axis, which is one chat with the engine; LiteLLM is
asked to pass on that very chat. Also cohorts of four candidates on three axes, 20 questions each.

- *requests/s*: as many as there can be, on 64 connections, LiteLLM on 16 (with 50 ms on 128 and 24): enough to keep
  each busy, and few enough that what is open at the end is little; and requests per second of the gateway's own
  processor time, because load, gateway and engine share the machine's processors.
- *added latency*: at half of that rate, the percentile through the gateway less the engine's own, asked directly by
  the same load at the same rate. We are also measured at LiteLLM's rate.

**How:** the load is wrk with a script: every text holds a number of its own, so that no cache and no sharing of answers
helps; at a set rate, requests leave by an even timetable, to the millisecond, whatever the answers take, as long as a
connection is free. The engine is an asyncio.Protocol with httptools on uvloop. Both gateways run one worker and ask for
an API key; LiteLLM is set up as its guide to production says, without a database. Sides alternate; figures are medians
over rounds. That the engine was asked every question is checked by its count.

**Limit:** the engine asked directly, which a process in Python with next to nothing to do can answer.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.gateway_parts import requests
from benchmarks.gateway_parts.gateways import litellm_part, litellm_version, preceptor_part, processor_s, upstream_part
from benchmarks.gateway_parts.load import Measured, Target, load, wrk_version
from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from preceptor_client.keys import add_key
from preceptor_client.stack import Process, Stack

QUESTIONS = {"engine": 1, "preceptor": 1, "cohorts": 20, "litellm": 1}
CONNECTIONS = {"0": (64, 16), "50": (128, 24)}
"""Of all but LiteLLM, and its own: a slower side needs fewer to be busy, and leaves fewer unanswered at the end."""
_PACED_CONNECTIONS = 256
"""At a set rate: how many answers may be open before the timetable is missed."""
_WARM_S = 1


@dataclass
class Side:
    """What is asked, of which process; what came of it."""

    process: Process
    target: Target
    questions: int
    saturated: list[Measured] = field(default_factory=list)
    processor_us: list[float] = field(default_factory=list)
    """Processor time of the process a request."""

    @property
    def rate(self) -> float:
        """Requests a second at saturation."""
        return median(each.rate for each in self.saturated)

    def figures(self) -> dict[str, float]:
        """Medians at saturation."""
        spent = median(self.processor_us)
        return {
            "requests_per_s": self.rate,
            "questions_per_s": self.rate * self.questions,
            "p50_ms": median(each.p50_ms for each in self.saturated),
            "p99_ms": median(each.p99_ms for each in self.saturated),
            "processor_us_per_request": spent,
            "requests_per_processor_s": 1e6 / spent,
        }


@contextmanager
def sides(latency_ms: float) -> Iterator[dict[str, Side]]:
    """Everything running and warm."""
    with tempfile.TemporaryDirectory() as name, Stack() as stack:
        folder = Path(name)
        key = add_key(folder / "keys.yaml", "benchmark")
        bodies = {"verdict": requests.verdict_request(), "cohort": requests.cohort_request()}
        for file, body in {**bodies, "chat": requests.chat_request()}.items():
            (folder / file).write_bytes(body)
        engine = stack.start(upstream_part(folder, latency_ms))
        ours = stack.start(preceptor_part(folder, engine.part.url or "", folder / "keys.yaml"))
        litellm = stack.start(litellm_part(folder, engine.part.url or "", key))

        def side(name: str, process: Process, path: str, body: str) -> Side:
            return Side(process, Target(f"{process.part.url}{path}", key, folder / body), QUESTIONS[name])

        made = {
            "engine": side("engine", engine, "/v1/chat/completions", "chat"),
            "preceptor": side("preceptor", ours, "/v1/judge", "verdict"),
            "cohorts": side("cohorts", ours, "/v1/judge", "cohort"),
            "litellm": side("litellm", litellm, "/v1/chat/completions", "chat"),
        }
        for each in made.values():
            ask_once(each.target)
            load(each.target, connections=4, seconds=_WARM_S)
        yield made


def ask_once(target: Target) -> None:
    """The first request, which may take long, or one behind all that a load has left open. Raises SystemExit unless it
    is answered."""
    headers = {"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"}
    body = target.body.read_bytes().replace(b"@", b"0")
    reply = httpx.post(target.url, content=body, headers=headers, timeout=60, trust_env=False)
    if reply.status_code != 200:
        raise SystemExit(f"{target.url} answered {reply.status_code}: {reply.text[:300]}")


def saturate(side: Side, engine: Process, connections: int, seconds: float) -> None:
    """One round without a set rate. Raises SystemExit if the engine was asked less than there was to ask."""
    ask_once(side.target)
    asked, spent = count(engine), processor_s(side.process.pid)
    measured = load(side.target, connections=connections, seconds=seconds)
    spent = processor_s(side.process.pid) - spent
    if count(engine) - asked < measured.requests * side.questions:
        raise SystemExit(f"{side.target.url}: answers did not come from the engine")
    side.saturated.append(measured)
    side.processor_us.append(1e6 * spent / measured.requests)


def count(engine: Process) -> int:
    """Prompts that the engine has answered."""
    return int(httpx.get(f"{engine.part.url}/count", trust_env=False).json()["count"])


def run(latency: str, rounds: int, seconds: float) -> dict[str, Any]:
    """The figures in front of an engine of this latency, in milliseconds."""
    many, few = CONNECTIONS[latency]
    with sides(float(latency)) as made:
        names = list(made)
        engine = made["engine"].process
        for _ in range(rounds):
            for name in names:
                saturate(made[name], engine, few if name == "litellm" else many, seconds)
            names.append(names.pop(0))

        def paced(name: str, rate: float) -> Measured:
            ask_once(made[name].target)
            return load(made[name].target, connections=_PACED_CONNECTIONS, seconds=seconds, rate=rate)

        own, peer = made["preceptor"].rate / 2, made["litellm"].rate / 2
        halves: dict[str, list[dict[str, float]]] = {"preceptor": [], "litellm": [], "preceptor_at_litellms_rate": []}
        for _ in range(rounds):
            halves["preceptor"].append(added(paced("preceptor", own), paced("engine", own)))
            bare = paced("engine", peer)
            halves["litellm"].append(added(paced("litellm", peer), bare))
            halves["preceptor_at_litellms_rate"].append(added(paced("preceptor", peer), bare))
        return {
            "connections": {"litellm": few, "others": many},
            "saturated": {name: side.figures() for name, side in made.items()},
            "half": {name: {key: median(e[key] for e in each) for key in each[0]} for name, each in halves.items()},
        }


def added(through: Measured, directly: Measured) -> dict[str, float]:
    """What the way through a gateway takes, and how much of it is the gateway's."""
    return {
        "requests_per_s": through.rate,
        "p50_ms": through.p50_ms,
        "p99_ms": through.p99_ms,
        "added_p50_ms": through.p50_ms - directly.p50_ms,
        "added_p99_ms": through.p99_ms - directly.p99_ms,
    }


def compared(result: dict[str, Any]) -> dict[str, float]:
    """Us over LiteLLM."""
    ours, theirs = result["saturated"]["preceptor"], result["saturated"]["litellm"]
    half = result["half"]
    return {
        "vs_litellm": ours["requests_per_s"] / theirs["requests_per_s"],
        "vs_litellm_per_processor_s": ours["requests_per_processor_s"] / theirs["requests_per_processor_s"],
        "p99_over_litellms": half["preceptor"]["p99_ms"] / half["litellm"]["p99_ms"],
        "p99_over_litellms_at_its_rate": half["preceptor_at_litellms_rate"]["p99_ms"] / half["litellm"]["p99_ms"],
    }


_NAMES = {
    "engine": "engine, directly",
    "preceptor": "judge service",
    "cohorts": "judge service, cohorts",
    "litellm": "LiteLLM",
    "preceptor_at_litellms_rate": "judge service at LiteLLM's rate",
}


def tables(result: dict[str, Any]) -> list[Table]:
    """For the page."""
    made = []
    for latency, figures in result["engines"].items():
        after = "at once" if latency == "0" else f"after {latency} ms"
        made.append(
            Table(
                f"As many as there can be, the engine answers {after}",
                ("side", "requests/s", "questions/s", "p99 ms", "requests per processor second"),
                [
                    (
                        _NAMES[name],
                        side["requests_per_s"],
                        side["questions_per_s"],
                        side["p99_ms"],
                        side["requests_per_processor_s"],
                    )
                    for name, side in figures["saturated"].items()
                ],
            )
        )
        columns = ("requests_per_s", "p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms")
        made.append(
            Table(
                f"At half of that rate, the engine answers {after}",
                ("side", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"),
                [(_NAMES[name], *(side[column] for column in columns)) for name, side in figures["half"].items()],
            )
        )
    return made


def main() -> None:
    """Parse the arguments, measure, print."""
    options_of = parser(__doc__, "gateway")
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--seconds", type=float, default=3, help="of each measurement, whole ones")
    options = options_of.parse_args()
    engines: dict[str, Any] = {}
    for latency in CONNECTIONS:
        print(f"an engine that answers after {latency} ms", file=sys.stderr)
        engines[latency] = run(latency, options.rounds, options.seconds)
    at_once = engines["0"]
    half = at_once["half"]["preceptor"]
    figures = {
        **compared(at_once),
        "added_p50_ms": half["added_p50_ms"],
        "added_p99_ms": half["added_p99_ms"],
        "workers": 1,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "body_bytes": {"verdict": len(requests.verdict_request()), "chat": len(requests.chat_request())},
        "engines": engines,
    }
    goals = (
        Goal("vs_litellm", figures["vs_litellm"], ">=", 5),
        Goal("p99_over_litellms", figures["p99_over_litellms"], "<=", 1),
        Goal("added_p50_ms", half["added_p50_ms"], "<=", 3),
    )
    packages = ("fastapi", "uvicorn", "uvloop", "httptools", "aiohttp", "pydantic")
    also = {"litellm": litellm_version(), "wrk": wrk_version()}
    finish(Result("gateway", figures, goals, packages, also), options)


if __name__ == "__main__":
    main()
