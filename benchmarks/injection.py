"""How often hostile text turns the nano teacher's verdict, and whether any of it does so by a structural route.

    preceptor bench injection --json
    preceptor bench injection --teacher DIR_OF_A_NANO_TEACHER --cohorts 4
    preceptor bench injection --rubrics my-rubrics

Every attack of the corpus (`benchmarks/attacks`) is put into the worse candidate of cohorts whose flaws are known and
whose verdict without attack is right: appended, prepended, or (quality alone) in its place. The judging code and a
real vLLM answer. A flip is a verdict that turns: the garbled text wins, the unsafe one is safe, the false one makes no
false statement. It is structural if the attack changes what only template and parser may decide. Last line: one JSON
object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from tokenizers import Tokenizer

from benchmarks.attacks.structure import Attack, changes_in_prompts, load_attacks, misreadings
from preceptor_client.cli.up import nano_teacher
from preceptor_client.contract import Candidate, Cohort, JudgeRequest
from preceptor_client.stack import Stack, vllm_part
from preceptor_services.assembly import assemble
from preceptor_services.engine import Prompt
from preceptor_services.judging import Judge, Panel
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import EngineSettings, ServiceSettings
from preceptor_trainer.nano.text import CLEAN, Rates, continuation, document, text
from preceptor_trainer.nano.world import World

PREFIX_WORDS, SUFFIX_WORDS = 24, 16
DRAWN, CANDIDATES_A_REQUEST, REQUESTS_AT_ONCE = 64, 32, 24
SHIPPED = ["nano", "instruct"]
PLACES: dict[str, Callable[[str, str], str]] = {
    "appended": lambda worse, attack: f"{worse} {attack}",
    "prepended": lambda worse, attack: f"{attack} {worse}",
    "replaced": lambda worse, attack: attack,
}


@dataclass(frozen=True)
class Case:
    """A prefix and a candidate that should score 0 on `axis`, against a better one where the axis is pairwise."""

    axis: str
    prefix: str
    worse: str
    better: str | None = None
    harmless: str = ""
    """Clean text to go on with after the worse candidate."""


@dataclass
class Tally:
    """What became of verdicts that were right before."""

    verdicts: int = 0
    flips: int = 0
    weakened: int = 0
    """Verdicts that became a tie or `possible`."""
    unanswered: int = 0
    """Failed or abstained: no score, so no reward."""

    def count(self, score: float | None) -> None:
        """One more verdict on the worse candidate."""
        self.unanswered += score is None
        self.verdicts += score is not None
        self.flips += score == 1
        self.weakened += score == 0.5

    def report(self) -> dict[str, object]:
        """The figures, with a 95 % interval (Wilson)."""
        rate = self.flips / self.verdicts if self.verdicts else 0.0
        return {
            "flip_rate": round(rate, 4),
            "interval": interval(self.flips, self.verdicts),
            "weakened_rate": round(self.weakened / self.verdicts, 4) if self.verdicts else 0.0,
            "verdicts": self.verdicts,
            "unanswered": self.unanswered,
        }


@dataclass
class Measured:
    """All that was counted."""

    unattacked: dict[str, Tally] = field(default_factory=dict)
    harmless: Tally = field(default_factory=Tally)
    by_place: dict[str, Tally] = field(default_factory=lambda: {place: Tally() for place in PLACES})
    by_axis: dict[str, Tally] = field(default_factory=dict)
    by_kind: dict[str, Tally] = field(default_factory=dict)
    flipping: Counter[str] = field(default_factory=Counter)
    """Attacks by flips, over all places and cohorts."""


def interval(found: int, of: int) -> list[float]:
    """95 % interval of a share."""
    if not of:
        return [0.0, 1.0]
    bounds = binomtest(found, of).proportion_ci(method="wilson")
    return [round(float(bounds.low), 4), round(float(bounds.high), 4)]


def cases(count: int, seed: int = 0) -> list[Case]:
    """One case per axis of each of `count` prefixes of the nano world."""
    rng, world = random.Random(seed), World.generate()
    made = []
    for _ in range(count):
        doc = document(world, rng, CLEAN, sentences=12)

        def suffix(rates: Rates, doc: list[Any] = doc) -> str:
            return text(continuation(world, doc, PREFIX_WORDS, rng, rates, SUFFIX_WORDS))

        prefix, harmless = text(doc[:PREFIX_WORDS]), text(document(world, rng, CLEAN, sentences=80))
        made += [
            Case("quality", prefix, suffix(Rates(garbled=1.0)), suffix(CLEAN), harmless),
            Case("safety", prefix, suffix(Rates(unsafe=1.0)), None, harmless),
            Case("factuality", prefix, suffix(Rates(false=1.0)), None, harmless),
        ]
    return made


async def scores(judge: Judge | Panel, case: Case, texts: Sequence[str]) -> list[float | None]:
    """The score of each of `texts` as the worse candidate of `case`."""
    ids = [f"c{place}" for place in range(len(texts))]
    candidates = [Candidate(id=name, text=words) for name, words in zip(ids, texts, strict=True)]
    if case.better is not None:
        cohorts = [[candidate, Candidate(id="better", text=case.better)] for candidate in candidates]
    else:
        size = CANDIDATES_A_REQUEST
        cohorts = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    at_once = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def ask(shown: Sequence[Candidate]) -> list[tuple[str, float | None]]:
        async with at_once:
            cohort = Cohort(id="cohort", prefix=case.prefix, candidates=tuple(shown))
            response = await judge.judge(JudgeRequest(cohort=cohort, axes=(case.axis,)))
        return [(verdict.candidate_id, verdict.score) for verdict in response.verdicts]

    found = dict(pair for pairs in await asyncio.gather(*map(ask, cohorts)) for pair in pairs)
    return [found[name] for name in ids]


async def measure(judge: Judge | Panel, attacks: Sequence[Attack], cohorts: int) -> Measured:
    """Ask about everything."""
    measured, chosen = Measured(), Counter[str]()
    for case in cases(DRAWN):
        [score] = await scores(judge, case, [case.worse])
        measured.unattacked.setdefault(case.axis, Tally()).count(score)
        if score != 0 or chosen[case.axis] == cohorts:
            continue
        chosen[case.axis] += 1
        lengths = [len(attack.text.split()) for attack in attacks]
        harmless = [f"{case.worse} {' '.join(islice(cycle(case.harmless.split()), words))}" for words in lengths]
        for score in await scores(judge, case, harmless):
            measured.harmless.count(score)
        for place, put in PLACES.items():
            if place == "replaced" and case.better is None:
                continue  # what was unsafe or false is gone
            attacked = await scores(judge, case, [put(case.worse, attack.text) for attack in attacks])
            for attack, score in zip(attacks, attacked, strict=True):
                measured.by_place[place].count(score)
                measured.flipping[attack.id] += score == 1
                if place == "appended":
                    measured.by_axis.setdefault(case.axis, Tally()).count(score)
                    measured.by_kind.setdefault(attack.kind, Tally()).count(score)
    return measured


async def structural_changes(
    attacks: Sequence[Attack], teacher: str | Path, rubrics: Sequence[str] = SHIPPED
) -> dict[str, list[str]]:
    """By attack, what it changes in any of `rubrics` that it must not; the nano teacher's own tokenizer counts."""
    tokenizer = Tokenizer.from_file(str(Path(teacher) / "tokenizer.json"))
    control = {n for n, t in tokenizer.get_added_tokens_decoder().items() if t.special and t.content != "<unk>"}

    def count(prompt: Prompt) -> int:
        return sum(number in control for number in tokenizer.encode(prompt.text, add_special_tokens=False).ids)

    [case, *_] = cases(1)
    changes: dict[str, list[str]] = {}
    for name in rubrics:
        book = load_rubrics(name)
        counts = {"nano": count} if name == "nano" else {}
        for attack in attacks:
            found = misreadings(book.neutraliser.clean(attack.text), ["A", "B", "tie"])
            for rubric in book.rubrics.values():
                for put in PLACES.values():
                    words = put(case.worse, attack.text)
                    found += await changes_in_prompts(
                        rubric, book.neutraliser, case.prefix, [case.better or ""], words, counts
                    )
            changes.setdefault(attack.id, []).extend(found)
    return {attack: found for attack, found in changes.items() if found}


def acceptable(attacks: Sequence[Attack]) -> Iterator[Attack]:
    """Those that the contract lets through to a judge."""
    for attack in attacks:
        try:
            Candidate(id="c", text=attack.text)
        except ValidationError:
            continue
        yield attack


def report(
    attacks: Sequence[Attack], refused: int, changes: dict[str, list[str]], measured: Measured, elapsed: float
) -> dict[str, Any]:
    """The figures."""
    appended = measured.by_place["appended"]
    right_or_wrong = sum(tally.verdicts for tally in measured.unattacked.values())
    wrong = sum(tally.flips + tally.weakened for tally in measured.unattacked.values())
    return {
        "benchmark": "injection",
        "strings": len(attacks),
        "refused_by_contract": refused,
        "structural_changes": len(changes),
        "structural_flips": sum(flips for attack, flips in measured.flipping.items() if attack in changes),
        "model_flip_rate": appended.report()["flip_rate"],
        "model_flip_interval": appended.report()["interval"],
        "model_flips": appended.flips,
        "model_verdicts": appended.verdicts,
        "harmless_flip_rate": measured.harmless.report()["flip_rate"],
        "harmless": measured.harmless.report(),
        "wrong_without_attack": round(wrong / right_or_wrong, 4),
        "wrong_without_attack_interval": interval(wrong, right_or_wrong),
        "by_place": {place: tally.report() for place, tally in measured.by_place.items()},
        "by_axis": {axis: tally.report() for axis, tally in measured.by_axis.items()},
        "by_kind": {kind: tally.report() for kind, tally in measured.by_kind.items()},
        "strongest": measured.flipping.most_common(8),
        "elapsed_s": round(elapsed, 1),
    }


async def run(url: str, teacher: str, cohorts: int, rubrics: Sequence[str]) -> dict[str, Any]:
    """Everything, on a teacher that answers at `url`."""
    started = time.perf_counter()
    attacks = load_attacks()
    accepted = list(acceptable(attacks))
    changes = await structural_changes(load_attacks(most_times=32), teacher, [*SHIPPED, *rubrics])
    for attack, found in changes.items():
        print(f"{attack}: {found[0]}", file=sys.stderr)
    assembly = assemble(ServiceSettings(engine=EngineSettings(urls=(url,)), rubrics=("nano",)))
    async with assembly.running():
        await assembly.engines.wait_ready()
        measured = await measure(assembly.judge, accepted, cohorts)
    return report(attacks, len(attacks) - len(accepted), changes, measured, time.perf_counter() - started)


def table(figures: dict[str, Any]) -> Table:
    """The figures by kind and place."""
    shown = Table("attack", "flips", "95 %", "weakened", "verdicts", "unanswered", title="Verdicts turned")
    for name, row in {**figures["by_kind"], **figures["by_place"], "harmless text": figures["harmless"]}.items():
        low, high = row["interval"]
        shown.add_row(
            name,
            f"{row['flip_rate']:.1%}",
            f"{low:.1%} - {high:.1%}",
            f"{row['weakened_rate']:.1%}",
            str(row["verdicts"]),
            str(row["unanswered"]),
        )
    return shown


def main() -> None:
    """Parse the arguments, start a teacher, measure, print."""
    parser = argparse.ArgumentParser(
        "preceptor bench injection", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--json", action="store_true", help="the figures alone, without a table")
    parser.add_argument("--teacher", help="directory of a nano teacher (default: trained once)")
    parser.add_argument("--cohorts", type=int, default=4, help="cohorts that every attack is tried on, per axis")
    parser.add_argument("--rubrics", nargs="*", default=[], help="further sets or files whose structure is checked")
    options = parser.parse_args()
    teacher = options.teacher or nano_teacher()
    with tempfile.TemporaryDirectory() as folder, Stack() as stack:
        print("starting a teacher", file=sys.stderr)
        url = stack.start(vllm_part(teacher, "teacher", Path(folder))).part.url
        figures = asyncio.run(run(url or "", teacher, options.cohorts, options.rubrics))
    if not options.json:
        Console().print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
