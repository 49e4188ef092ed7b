"""Rounds of the benchmark: the same questions through the service and straight to vLLM.

In: a running teacher and services. Out: a `Round` each: how long, and the processor time of every process that took
part. Guarantees: vLLM's prefix cache is empty when a round begins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.judge_parts.load import Job, Load, answers_to
from preceptor_client.contract import JudgeRequest, JudgeResponse
from preceptor_services.engine import Generation, Prompt
from preceptor_services.engine.protocol import body_of, path_of

_TICK_S = 0.01
_HITS = "vllm:prefix_cache_hits_total"


@dataclass(frozen=True)
class Round:
    """Seconds of wall and processor time; prompt tokens that vLLM had in its prefix cache."""

    seconds: float
    cpu_s: Mapping[str, float]
    latencies_s: Sequence[float]
    tokens_cached: float


@dataclass
class Rounds:
    """Runs them. `pids` are the processes to be watched, by name: each the leader of a session of its own."""

    load: Load
    teacher_url: str
    pids: Mapping[str, int]

    def run(self, job: Job) -> Round:
        """One round of a job."""
        httpx.post(f"{self.teacher_url}/reset_prefix_cache", timeout=30).raise_for_status()
        hits = self._hits()
        before = {name: session_cpu_s(pid) for name, pid in self.pids.items()}
        done = self.load.send(job)
        cpu = {name: session_cpu_s(pid) - before[name] for name, pid in self.pids.items()}
        return Round(done.seconds, {**cpu, "client": done.cpu_s}, done.latencies_s, self._hits() - hits)

    def through(self, judge_url: str, name: str, requests: Sequence[JudgeRequest], in_flight: int) -> Job:
        """The job that puts `requests` to a judge service."""
        bodies = [request.model_dump_json(exclude_defaults=True) for request in requests]
        return self.load.prepare(name, f"{judge_url}/v1/judge", bodies, in_flight)

    def direct(self, name: str, bodies: Sequence[Mapping[str, Any]], in_flight: int) -> Job:
        """The job that puts completions requests to vLLM."""
        url = f"{self.teacher_url}{path_of('completion')}"
        return self.load.prepare(name, url, [json.dumps(body) for body in bodies], in_flight)

    def _hits(self) -> float:
        text = httpx.get(f"{self.teacher_url}/metrics", timeout=30).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == _HITS)


def responses_to(job: Job) -> list[JudgeResponse]:
    """What the service answered the last time."""
    return [JudgeResponse.model_validate(answer) for answer in answers_to(job)]


def bodies_for(
    asked: Mapping[Generation, Sequence[Prompt]], label_tokens: Mapping[str, int], model: str, prompts_a_request: int
) -> list[dict[str, Any]]:
    """Completions requests for all that was asked; the kinds take turns as they do in the service's own."""
    placed = []
    for generation, prompts in asked.items():
        for start in range(0, len(prompts), prompts_a_request):
            chunk = prompts[start : start + prompts_a_request]
            body = body_of(chunk, generation, model=model, constraint=generation.constraint, label_tokens=label_tokens)
            placed.append((start / len(prompts), body))
    return [body for _, body in sorted(placed, key=lambda one: one[0])]


def texts_by_prompt(job: Job, bodies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What vLLM answered to each prompt of a direct job."""
    return {
        body["prompt"][choice["index"]]: choice["text"]
        for body, answer in zip(bodies, answers_to(job), strict=True)
        for choice in answer["choices"]
    }


def label_tokens_of(teacher_url: str, model: str, asked: Mapping[Generation, Sequence[Prompt]]) -> dict[str, int]:
    """The token of every label."""
    found = {}
    for label in {label for generation in asked for label in generation.labels}:
        body = {"model": model, "prompt": label, "add_special_tokens": False}
        (found[label],) = httpx.post(f"{teacher_url}/tokenize", json=body, timeout=30).json()["tokens"]
    return found


def session_cpu_s(leader: int) -> float:
    """Processor time of all processes of a session, so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader:
            ticks += int(fields[11]) + int(fields[12])
    return ticks * _TICK_S
