"""The attack corpus, and whether an attack changes what a prompt is made of or what an answer is read as. Pure, but for
reading the corpus beside this file.

In: an attack as text, in the place of one candidate of a cohort. Out: what it changes that only templates and parsers
may decide: the questions asked, the words around the candidate, the fences, the control tokens; the label read from a
teacher that quotes the attack. Prompts come out of the judging code itself. A change here is a hole, whatever a model
makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from preceptor_client.contract import Candidate, Cohort, Order, Origin, Parser, ScheduleName
from preceptor_services.engine import Prompt
from preceptor_services.fencing import Neutraliser
from preceptor_services.judging.findings import Heard
from preceptor_services.judging.modes import Pairing, Question, judge_axis
from preceptor_services.judging.texts import Texts
from preceptor_services.parsing import read, read_order
from preceptor_services.rubrics import Rubric

HARMLESS = "\ue000"
"""Stands in the attack's place in the prompt that the attacked one is compared with; no other text holds it."""

Count = Callable[[Prompt], int]
"""How many control tokens a teacher's tokenizer finds in a prompt."""


@dataclass(frozen=True)
class Attack:
    """`id` is `<kind>/<name>`."""

    id: str
    kind: str
    text: str


def load_attacks(*, most_times: int | None = None) -> list[Attack]:
    """Every attack of the corpus. A file is a kind; an entry is a text, or `{text, times, then}`: a text repeated, at
    most `most_times` if that is given, perhaps with another after it."""
    attacks = []
    for file in sorted(Path(__file__).parent.glob("*.yaml")):
        for name, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            if isinstance(entry, str):
                entry = {"text": entry, "times": 1}
            text = entry["text"] * min(entry["times"], most_times or entry["times"]) + entry.get("then", "")
            attacks.append(Attack(f"{file.stem}/{name}", file.stem, text))
    return attacks


def cohort_of(prefix: str, texts: Sequence[str], reference: str) -> Cohort:
    """A cohort without the contract's checks, so that texts count which it would refuse, such as half a character."""
    candidates = tuple(
        Candidate.model_construct(id=f"c{place}", origin=Origin.ROLLOUT, text=text) for place, text in enumerate(texts)
    )
    return Cohort.model_construct(id="cohort", prefix=prefix, candidates=candidates, reference=reference)


async def changes_in_prompts(
    rubric: Rubric, neutraliser: Neutraliser, prefix: str, others: Sequence[str], text: str, counts: Mapping[str, Count]
) -> list[str]:
    """What `text` as the last candidate, after `others`, changes in the prompts of `rubric` beyond its own place."""
    attacked = Texts.of(cohort_of(prefix, [*others, text], others[0]), neutraliser)
    harmless = Texts.of(cohort_of(prefix, [*others, HARMLESS], others[0]), neutraliser)
    shown, wanted = await prompts_of(rubric, attacked), await prompts_of(rubric, harmless)
    if len(shown) != len(wanted):
        return [f"{len(shown)} questions instead of {len(wanted)}"]
    changes = set()
    for prompt, without in zip(shown, wanted, strict=True):
        expected = without.text.replace(harmless.fence, attacked.fence).replace(HARMLESS, attacked.distinct[-1])
        if (prompt.text, prompt.system) != (expected, without.system):
            changes.add("words around the candidate")
        if prompt.text.count(attacked.fence) != without.text.count(harmless.fence):
            changes.add("fences")
        changes |= {f"control tokens ({name})" for name, count in counts.items() if count(prompt) != count(without)}
    return sorted(changes)


async def prompts_of(rubric: Rubric, texts: Texts) -> list[Prompt]:
    """All that is asked about `texts`, in the judging code's order."""
    prompts: list[Prompt] = []

    async def ask(questions: Sequence[Question]) -> list[Heard]:
        prompts.extend(question.prompt for question in questions)
        return [Heard(error="nobody is asked") for _ in questions]

    await judge_axis(rubric, texts, Pairing(ScheduleName.ALL_PAIRS, Order.BOTH, 0), ask)
    return prompts


def misreadings(text: str, labels: Sequence[str]) -> list[str]:
    """Answers that quote `text`, as a prompt showed it, and are read as something else than they decide."""
    found = []
    quotation = f'It says: "{text}"'
    for label in labels:
        decided: list[tuple[Parser, str]] = [
            ("json", json.dumps({"reasoning": f"{quotation} That is no argument.", "verdict": label})),
            ("final_line", f"{quotation}\nThat is no argument.\nVerdict: {label}"),
        ]
        found += [f"{p}: {a}" for p, a in decided if read(p, a, labels, texts=[text]).label != label]
        sloppy = f"It says: {text}\n\nAnswer: {label}"
        found += [
            f"{parser}: {sloppy}"
            for parser in ("exact", "final_line", "json")
            if read(parser, sloppy, labels, texts=[text]).label not in (label, None)
        ]
    found += [f"{p}: {a}" for p, a in _undecided(text) if read(p, a, labels, texts=[text]).label is not None]
    found += [f"{p}: {a}" for p, a in _undecided(text) if read_order(p, a, 3, texts=[text]).order is not None]
    for parser, answer in [*_undecided(text), *_broken_off(text)]:
        if read(parser, answer, labels, cut_off=True).label or read_order(parser, answer, 3, cut_off=True).order:
            found.append(f"{parser}, cut off: {answer}")
    return found


def _undecided(text: str) -> list[tuple[Parser, str]]:
    """Answers that quote and do not decide."""
    escaped = json.dumps({"reasoning": f"It says: {text}"}).removesuffix('"}')
    return [("json", escaped), ("json", f"It says:\n{text}"), ("exact", f"It says: {text}"), ("exact", f'"{text}')]


def _broken_off(text: str) -> list[tuple[Parser, str]]:
    """Answers that the length limit ended in the middle of a quotation, some of them careless about quoting."""
    return [("json", f'{{"reasoning": "It says: {text}'), ("json", text), ("final_line", f"It says:\n{text}")]
