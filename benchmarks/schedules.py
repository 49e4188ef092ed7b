"""Best and worst found by each schedule under judges that err, against all pairs asked of the same judge and again.

    preceptor bench schedules --json --cohorts 2000

No service and no model: a judge is a table of answers, one for each of the comparisons that all pairs in both orders
ask, drawn for a cohort whose true order is known. Three kinds: `flips` errs at one rate whatever it compares; `gaps`
errs more the closer two texts are, at the same rate on average; `places` prefers the text shown first in every fifth
answer, and else errs as `flips`. The last two have a quarter of the cohorts, and only all pairs and adaptive. A
schedule's pick is the text of highest, or lowest, score; equals are drawn by lot.

`best_agreement`, `worst_agreement`, `both_agreement`: how often the pick is that of all pairs of the same run of the
judge; `..._second_run`: of a second run with errors of its own, which is also what `self_agreement_all_pairs` compares
all pairs with. `regret`: by how many places the pick misses the true best or worst, their mean. Last line: one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, exp, sqrt
from random import Random
from typing import Any

from preceptor_client.contract import Order, ScheduleName
from preceptor_services.schedules import Standing, tournament

FLIP_RATES = (0.05, 0.15, 0.30)
SPREADS = {0.05: 8.0, 0.15: 2.35, 0.30: 0.95}
"""Of normal strengths, so that a logistic judge of 16 texts errs at that rate on average."""
FIRST_PLACE_RATE = 0.2
Answers = Mapping[tuple[int, int], float]
Pick = tuple[int, int]
"""The places in the true order of the texts taken for the best and the worst."""


@dataclass(frozen=True)
class Contender:
    """A schedule with the order in which it shows pairs."""

    schedule: ScheduleName
    order: Order
    budget: int | None = None
    """Of the adaptive schedule, in questions; its own if None."""


@dataclass(frozen=True)
class Task:
    """Some cohorts of one judge, for one process."""

    judge: str
    flip_rate: float
    cohorts: range
    candidates: int
    contenders: tuple[Contender, ...]


@dataclass
class Sums:
    """Means and standard errors of what was added under each name."""

    count: int
    total: defaultdict[str, float]
    squares: defaultdict[str, float]

    @classmethod
    def empty(cls) -> Sums:
        return cls(0, defaultdict(float), defaultdict(float))

    def add(self, values: Mapping[str, float]) -> None:
        self.count += 1
        for name, value in values.items():
            self.total[name] += value
            self.squares[name] += value * value

    def merge(self, other: Sums) -> None:
        self.count += other.count
        for name in other.total:
            self.total[name] += other.total[name]
            self.squares[name] += other.squares[name]

    def mean(self, name: str) -> float:
        return self.total[name] / self.count

    def error(self, name: str) -> float:
        return sqrt(max(self.squares[name] / self.count - self.mean(name) ** 2, 0) / self.count)


def answers_of(judge: str, rate: float, strengths: Sequence[float], dice: Random) -> Answers:
    """One run of a judge over all comparisons of texts that stand in their true order."""

    def chance(first: int, second: int) -> float:
        if judge == "gaps":
            return 1 / (1 + exp(strengths[second] - strengths[first]))
        return 1 - rate if first < second else rate

    def answer(first: int, second: int) -> float:
        if judge == "places" and dice.random() < FIRST_PLACE_RATE:
            return 1.0
        return float(dice.random() < chance(first, second))

    return {(i, j): answer(i, j) for i, j in product(range(len(strengths)), repeat=2) if i != j}


def played(contender: Contender, answers: Answers, candidates: int, dice: Random) -> tuple[Pick, dict[str, float]]:
    """What a schedule picks, and what that took. The texts are shuffled, so that their indices tell nothing."""
    true_place = dice.sample(range(candidates), candidates)
    began = time.process_time()
    contest = tournament(
        contender.schedule,
        [1] * candidates,
        order=contender.order,
        seed=dice.getrandbits(32),
        pivot=0,
        budget=contender.budget,
    )
    rounds = 0
    while asked := contest.next_round():
        rounds += 1
        contest.record({pair: answers[true_place[pair[0]], true_place[pair[1]]] for pair in asked})
    found = picked(contest.standings(), dice)
    cost = {"calls": len(contest.outcomes), "rounds": rounds, "ms": 1e3 * (time.process_time() - began)}
    return (true_place[found[0]], true_place[found[1]]), cost


def picked(standings: Sequence[Standing], dice: Random) -> Pick:
    """The texts of highest and lowest score, equals by lot."""
    scores = [
        (standing.score, dice.random(), text) for text, standing in enumerate(standings) if standing.score is not None
    ]
    return max(scores)[2], min(scores)[2]


def measure(task: Task) -> dict[Contender, Sums]:
    """The figures of every contender over the task's cohorts; contenders see the same answers."""
    sums = {contender: Sums.empty() for contender in task.contenders}
    everything = Contender(ScheduleName.ALL_PAIRS, Order.BOTH)
    size = task.candidates
    for cohort in task.cohorts:
        dice = Random(f"{task.judge} {task.flip_rate} {size} {cohort}")
        spread = SPREADS[task.flip_rate]
        strengths = sorted((dice.gauss(0, spread) for _ in range(size)), reverse=True)
        first_run, second_run = (answers_of(task.judge, task.flip_rate, strengths, dice) for _ in range(2))
        (same, cost), (second, _) = (played(everything, run, size, dice) for run in (first_run, second_run))
        self_agreement = agreement(same, second)
        for contender in task.contenders:
            pick = same
            if contender != everything:
                pick, cost = played(contender, first_run, size, dice)
            with_same, with_second = agreement(pick, same), agreement(pick, second)
            figures = {"calls_ratio": cost["calls"] / (size * (size - 1)), **cost}
            figures["regret"] = (pick[0] + size - 1 - pick[1]) / 2
            for name in ("best", "worst", "both"):
                figures[f"{name}_agreement"] = with_same[name]
                figures[f"{name}_agreement_second_run"] = with_second[name]
                figures[f"{name}_self_agreement"] = self_agreement[name]
                figures[f"{name}_margin"] = with_same[name] - self_agreement[name]
                figures[f"{name}_margin_second_run"] = with_second[name] - self_agreement[name]
            sums[contender].add(figures)
    return sums


def agreement(one: Pick, other: Pick) -> dict[str, float]:
    """Whether two picks are the same."""
    best, worst = one[0] == other[0], one[1] == other[1]
    return {"best": float(best), "worst": float(worst), "both": float(best and worst)}


def tasks(cohorts: int, candidates: int, parts: int, budget: int | None = None) -> list[Task]:
    """The whole benchmark, every judge's cohorts in `parts`."""
    adaptive = tuple(Contender(ScheduleName.ADAPTIVE, order, budget) for order in Order)
    everyone = tuple(Contender(schedule, Order.BOTH) for schedule in ScheduleName if schedule != ScheduleName.ADAPTIVE)
    found = []
    for judge, rate in product(("flips", "gaps", "places"), FLIP_RATES):
        contenders = everyone + adaptive if judge == "flips" else (everyone[0], *adaptive)
        size = cohorts if judge == "flips" else ceil(cohorts / 4)
        bounds = [size * part // parts for part in range(parts + 1)]
        found += [Task(judge, rate, range(*part), candidates, contenders) for part in pairwise(bounds)]
    return found


def report(sums: Mapping[tuple[str, float], Mapping[Contender, Sums]]) -> list[dict[str, Any]]:
    """One row for every judge, flip rate and contender."""
    return [
        {
            "judge": judge,
            "flip_rate": rate,
            "schedule": contender.schedule.value,
            "order": contender.order.value,
            "cohorts": of.count,
            **{name: round(of.mean(name), 4) for name in of.total if "self" not in name},
            "self_agreement_all_pairs": {
                name: round(of.mean(f"{name}_self_agreement"), 4) for name in ("best", "worst", "both")
            },
            "standard_errors": {
                name: round(of.error(name), 4)
                for name in of.total
                if "agreement" in name or "margin" in name or name == "regret"
            },
        }
        for (judge, rate), contenders in sums.items()
        for contender, of in contenders.items()
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for the eye."""
    lines = [
        f"{'':37}same run:               second run:       all pairs with itself:\n"
        "judge  flips schedule  order   calls   ms  best  worst both   best  worst both   best  worst both   regret"
    ]
    for row in rows:
        own = row["self_agreement_all_pairs"]
        lines.append(
            "{judge:6} {flip_rate:.2f}  {schedule:9} {order:6} {calls:6.1f} {ms:4.1f} {best_agreement:.3f} "
            "{worst_agreement:.3f} {both_agreement:.3f}  {best_agreement_second_run:.3f} "
            "{worst_agreement_second_run:.3f} {both_agreement_second_run:.3f}  ".format(**row)
            + "{best:.3f} {worst:.3f} {both:.3f}".format(**own)
            + "  {regret:.2f}".format(**row)
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        "preceptor bench schedules", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--cohorts", type=int, default=2000, help="simulated cohorts for each judge and flip rate")
    parser.add_argument("--candidates", type=int, default=16, help="candidates a cohort, all different")
    parser.add_argument("--budget", type=int, help="questions for adaptive (default: its own)")
    parser.add_argument("--json", action="store_true", help="only the JSON object, no table")
    options = parser.parse_args()
    if options.cohorts < 1 or options.candidates < 2 or (options.budget is not None and options.budget < 2):
        parser.error("--cohorts must be at least 1, --candidates and --budget at least 2")
    began = time.perf_counter()
    sums: dict[tuple[str, float], dict[Contender, Sums]] = {}
    work = tasks(options.cohorts, options.candidates, parts=8, budget=options.budget)
    with ProcessPoolExecutor() as pool:
        for task, part in zip(work, pool.map(measure, work), strict=True):
            of_judge = sums.setdefault((task.judge, task.flip_rate), {})
            for contender, found in part.items():
                of_judge.setdefault(contender, Sums.empty()).merge(found)
    rows = report(sums)
    if not options.json:
        print(table(rows), file=sys.stderr)
    figures = {
        "benchmark": "schedules",
        "cpus": os.cpu_count(),
        "cohorts": options.cohorts,
        "candidates": options.candidates,
        "budget": options.budget,
        "seeds": f"0..{options.cohorts - 1}",
        "regret_unit": "places in the true order, mean of best and worst",
        "elapsed_s": round(time.perf_counter() - began, 1),
        "schedules": rows,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
