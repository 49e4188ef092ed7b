"""Judging, next to the same prompts sent straight to vLLM.

    preceptor bench judge --json

A private stack on loopback: vLLM with the nano teacher, the judge service, a process that makes the load. Cohorts of
the nano world (a prefix of 24 words, suffixes of 16), all different, in all pairs and both orders on `quality` and one
by one on `safety` and `factuality`; an answer is one token, held to the labels. vLLM's prefix cache is emptied before
every round.

- **Share of direct.** Verdicts a second through `POST /v1/judge` over those of the very same prompts, recorded from
  the judge, sent to `/v1/completions` over kept connections by the same process: the best of several numbers of
  prompts a request and requests in flight, found first. This is the limit: no service is in the way, and on two cores
  every processor second that service and client take is one that vLLM has not. Scores are compared as well.
- **Schedules.** `quality` alone on larger cohorts, adaptive and all pairs in turn; how often the best and the worst
  are ones that all pairs finds, too.
- **Cache.** A second service, with a Redis: cohorts, and the same again.
- **Equal candidates.** Cohorts in which every text comes twice, next to as many different ones.
- **Votes.** Five votes as one question, which travel as one request with `n`, next to the same cohort asked five times.

Processor time is of all processes of a part. `--judge-url` measures a running service alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.judge_parts import comparing
from benchmarks.judge_parts.cohorts import PREFIX_WORDS, SUFFIX_WORDS, Script, Source, judged_by
from benchmarks.judge_parts.load import Job, Load
from benchmarks.judge_parts.rounds import (
    Round,
    Rounds,
    bodies_for,
    label_tokens_of,
    responses_to,
    texts_by_prompt,
)
from benchmarks.measuring.result import Goal, Result, Table, finish, parser
from benchmarks.measuring.sides import interleaved
from preceptor_client.cli.up import nano_teacher
from preceptor_client.contract import Axis, JudgeRequest, Sampling, ScheduleName
from preceptor_client.stack import Stack, judge_part, redis_part, vllm_part
from preceptor_client.stack.parts import find_vllm, vllm_version

MODEL, RUBRICS = "teacher", "nano"
AXES = 3
TUNED_OVER = ((16, 8), (32, 8), (64, 2), (64, 4), (64, 8), (128, 2), (128, 4))
"""Prompts a request, and requests in flight."""
VOTES = 5


def in_turn(rounds: Rounds, jobs: Mapping[str, Job], count: int) -> dict[str, list[Round]]:
    """So many rounds of every job, after one that is not counted."""
    kept: dict[str, list[Round]] = {name: [] for name in jobs}

    def run(name: str) -> None:
        kept[name].append(rounds.run(jobs[name]))

    interleaved({name: partial(run, name) for name in jobs}, count)
    return {name: each[1:] for name, each in kept.items()}


def share_of_direct(rounds: Rounds, judge_url: str, source: Source, options: argparse.Namespace) -> dict[str, Any]:
    """The service next to a tuned client of vLLM."""
    requests = source.draw(options.cohorts, options.candidates)
    script = Script()
    judged_by(script, requests, RUBRICS)
    tokens = label_tokens_of(rounds.teacher_url, MODEL, script.asked)
    questions = sum(map(len, script.asked.values()))
    bodies = {size: bodies_for(script.asked, tokens, MODEL, size) for size, _ in TUNED_OVER}
    tried = {
        (size, in_flight): rounds.direct(f"direct-{size}-{in_flight}", bodies[size], in_flight)
        for size, in_flight in TUNED_OVER
    }
    print("tuning the direct client", file=sys.stderr)
    tuning = [(tried[setting], rounds.run(tried[setting]).seconds) for setting in (*TUNED_OVER, *TUNED_OVER)]
    seconds = {setting: min(s for job, s in tuning if job is tried[setting]) for setting in TUNED_OVER}
    best = min(seconds, key=seconds.__getitem__)
    service = rounds.through(judge_url, "service", requests, options.concurrency)
    print("the service and the direct client in turn", file=sys.stderr)
    found = in_turn(rounds, {"service": service, "direct": tried[best]}, options.rounds)
    size = len(requests), len(requests) * options.candidates * AXES, questions
    responses = responses_to(service)
    direct = judged_by(Script(known=texts_by_prompt(tried[best], bodies[best[0]])), requests, RUBRICS)
    return {
        "share_of_direct": comparing.ratio(found["direct"], found["service"]),
        "service": comparing.rates(found["service"], *size),
        "direct": {
            **comparing.rates(found["direct"], *size),
            "prompts_per_request": best[0],
            "requests_in_flight": best[1],
        },
        "same_scores": comparing.same_scores(responses, direct),
        "not_ok": comparing.failed(responses),
        "tuning": [
            {"prompts_per_request": a, "requests_in_flight": b, "questions_per_s": questions / seconds[a, b]}
            for a, b in TUNED_OVER
        ],
    }


def schedules(rounds: Rounds, judge_url: str, source: Source, options: argparse.Namespace) -> dict[str, Any]:
    """Adaptive next to all pairs, end to end."""
    requests = source.draw(options.large_cohorts, options.large_candidates, axes=(Axis.QUALITY,))

    def job(schedule: ScheduleName) -> Job:
        asked = [request.model_copy(update={"schedule": schedule}) for request in requests]
        return rounds.through(judge_url, schedule.value, asked, options.concurrency)

    jobs = {each.value: job(each) for each in (ScheduleName.ALL_PAIRS, ScheduleName.ADAPTIVE)}
    found = in_turn(rounds, jobs, options.side_rounds)
    answers = {name: responses_to(job) for name, job in jobs.items()}
    sides = {
        name: {
            "cohorts_per_s": len(requests) / median(one.seconds for one in found[name]),
            **comparing.usage(answers[name]),
        }
        for name in jobs
    }
    return {
        **sides,
        "adaptive_over_all_pairs": comparing.ratio(found["all_pairs"], found["adaptive"]),
        "agreement": comparing.agreement(answers["adaptive"], answers["all_pairs"]),
    }


def next_to(
    rounds: Rounds,
    judge_url: str,
    sides: Mapping[str, Sequence[JudgeRequest]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Two sides that bring the same verdicts: how often the second's time the first's is, and what both cost. Costs
    are per request of the first."""
    jobs = {name: rounds.through(judge_url, name, asked, options.concurrency) for name, asked in sides.items()}
    found = in_turn(rounds, jobs, options.side_rounds)
    first, second = sides
    costs = {name: comparing.usage(responses_to(job)) for name, job in jobs.items()}
    scale = len(sides[second]) / len(sides[first])
    return {
        "speedup": comparing.ratio(found[second], found[first]),
        first: costs[first],
        second: {name: value * scale for name, value in costs[second].items()},
    }


def cache(rounds: Rounds, judge_url: str, source: Source, options: argparse.Namespace) -> dict[str, Any]:
    """Cohorts, and the same again."""
    first, again, answers = [], [], []
    for number in range(options.side_rounds):
        requests = source.draw(options.side_cohorts, options.candidates)
        job = rounds.through(judge_url, f"cache-{number}", requests, options.concurrency)
        first.append(rounds.run(job))
        new = responses_to(job)
        again.append(rounds.run(job))
        answers += responses_to(job)
        assert comparing.same_scores(new, answers[-len(new) :]) == 1.0, "the cache answers otherwise"
    return {"speedup": comparing.ratio(first, again), "again": comparing.usage(answers)}


def duplicates(source: Source, options: argparse.Namespace) -> dict[str, list[JudgeRequest]]:
    """Every text twice, next to as many different ones."""
    count, candidates = options.side_cohorts, 8
    return {"equal": source.draw(count, candidates, copies=2), "different": source.draw(count, candidates)}


def votes(source: Source, options: argparse.Namespace) -> dict[str, list[JudgeRequest]]:
    """Five votes at once, and one vote five times."""
    requests = source.draw(options.side_cohorts, options.candidates)

    def of(request: JudgeRequest, votes: int, seed: int) -> JudgeRequest:
        return request.model_copy(update={"sampling": Sampling(votes=votes, temperature=1.0, seed=seed)})

    return {
        "one_question": [of(request, VOTES, 0) for request in requests],
        "five_questions": [of(request, 1, seed) for request in requests for seed in range(VOTES)],
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, on a private stack."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        parts = stack.enter_context(Stack())
        load = stack.enter_context(Load(folder))
        print("starting a teacher and two judges", file=sys.stderr)
        redis = parts.start(redis_part(folder / "redis"))
        model = options.teacher or nano_teacher()
        teacher = parts.start(vllm_part(model, MODEL, folder, development=True))
        teacher_url = teacher.part.url or ""
        judge = parts.start(judge_part(folder, teacher_url, MODEL))
        store = f"--store.url={redis.part.url}"
        keeping = parts.start(judge_part(folder / "keeping", teacher_url, MODEL, overrides=[store]))
        rounds = Rounds(load, teacher_url, {"vllm": teacher.pid, "service": judge.pid})
        url, source = judge.part.url or "", Source(options.seed)
        figures = share_of_direct(rounds, url, source, options)
        print("schedules", file=sys.stderr)
        figures["schedules"] = schedules(rounds, url, source, options)
        print("cache, equal candidates, votes", file=sys.stderr)
        figures["cache"] = cache(rounds, keeping.part.url or "", source, options)
        figures["dedup"] = next_to(rounds, url, duplicates(source, options), options)
        figures["votes"] = next_to(rounds, url, votes(source, options), options)
    return figures


def of_running(options: argparse.Namespace) -> dict[str, Any]:
    """A running service's own figures."""
    source = Source(options.seed)
    with tempfile.TemporaryDirectory() as folder, Load(Path(folder)) as load:
        requests = source.draw(options.cohorts * options.rounds, options.candidates)
        bodies = [request.model_dump_json(exclude_defaults=True) for request in requests]
        job = load.prepare("running", f"{options.judge_url.rstrip('/')}/v1/judge", bodies, options.concurrency)
        done = load.send(job)
        responses = responses_to(job)
    one = Round(done.seconds, {"client": done.cpu_s}, done.latencies_s, 0)
    questions = sum(response.usage.calls for response in responses)
    verdicts = sum(len(response.verdicts) for response in responses)
    return {
        "service": comparing.rates([one], len(requests), verdicts, questions),
        "not_ok": comparing.failed(responses),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Of the page."""
    sides, sizes = ("service", "direct"), result["sizes"]
    direct, compared, agreed = result["direct"], result["schedules"], result["schedules"]["agreement"]
    cached, equal, votes = result["cache"], result["dedup"], result["votes"]
    saved = {
        "the same cohorts again": (cached["speedup"], cached["again"]["calls"], sizes["questions_per_cohort"]),
        "every text twice": (equal["speedup"], equal["equal"]["calls"], equal["different"]["calls"]),
        "five votes": (votes["speedup"], votes["one_question"]["calls"], votes["five_questions"]["calls"]),
    }
    return [
        Table(
            f"{sizes['cohorts']} cohorts of {sizes['candidates']} a round, {sizes['concurrency']} at once; direct: "
            f"{direct['prompts_per_request']} prompts a request, {direct['requests_in_flight']} in flight. Equal "
            f"scores: {result['same_scores']:.1%}.",
            ("", "verdicts/s", "questions/s", "cohorts/s"),
            [
                [side, *(result[side][rate] for rate in ("verdicts_per_s", "questions_per_s", "cohorts_per_s"))]
                for side in sides
            ],
        ),
        Table(
            "Processor seconds for 1,000 verdicts:",
            ("", "vLLM", "service", "client"),
            [
                [side, *(result[side]["cpu_s_per_1000_verdicts"][part] for part in ("vllm", "service", "client"))]
                for side in sides
            ],
        ),
        Table(
            f"Schedules, {sizes['large_candidates']} candidates, quality alone; of adaptive, the best is one of all "
            f"pairs' best in {agreed['best']:.0%} of the cohorts, the worst one of its worst in {agreed['worst']:.0%}.",
            ("", "cohorts/s", "questions a cohort", "prompt tokens a cohort"),
            [
                [
                    name.replace("_", " "),
                    *(compared[name][each] for each in ("cohorts_per_s", "calls", "prompt_tokens")),
                ]
                for name in ("all_pairs", "adaptive")
            ],
        ),
        Table(
            "What is not asked again:",
            ("", "times as fast", "questions a cohort", "instead of"),
            [[name, *figures] for name, figures in saved.items()],
        ),
    ]


def main() -> None:
    """Measure, and say what came of it."""
    arguments = parser(__doc__, "judge")
    arguments.add_argument("--judge-url", help="a running judge service, measured alone; else a private stack")
    arguments.add_argument("--teacher", help="directory of a nano teacher (default: trained once)")
    arguments.add_argument("--cohorts", type=int, default=150, help="cohorts a round")
    arguments.add_argument("--candidates", type=int, default=5, help="candidates a cohort")
    arguments.add_argument("--concurrency", type=int, default=16, help="cohorts in flight")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--large-cohorts", type=int, default=10, help="cohorts that the schedules are compared on")
    arguments.add_argument("--large-candidates", type=int, default=16)
    arguments.add_argument("--side-cohorts", type=int, default=16, help="cohorts a round of cache, dedup and votes")
    arguments.add_argument("--side-rounds", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    questions = options.candidates * (options.candidates - 1) + 2 * options.candidates
    sizes = {
        **{name: value for name, value in vars(options).items() if type(value) is int},
        "prefix_words": PREFIX_WORDS,
        "suffix_words": SUFFIX_WORDS,
        "questions_per_cohort": questions,
    }
    if options.judge_url:
        result = Result("judge", {"sizes": sizes, **of_running(options)}, packages=())
    else:
        figures = measured(options)
        goals = [Goal("share_of_direct", figures["share_of_direct"], ">=", 0.95)]
        packages = ("aiohttp", "fastapi", "uvicorn", "uvloop", "redis")
        also = {"vllm": vllm_version(find_vllm())}
        result = Result("judge", {"sizes": sizes, **figures}, goals, packages, also)
    finish(result, options)


if __name__ == "__main__":
    main()
