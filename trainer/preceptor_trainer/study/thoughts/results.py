"""From the results of the study of thoughts to its table. Pure; importable without torch.

In: one record for each run that is done. Out: Markdown, with means over seeds and their intervals as in
`preceptor_trainer.study.results`.
"""

from __future__ import annotations

from collections.abc import Sequence

from preceptor_trainer.planning.show import Table, as_markdown, quantity
from preceptor_trainer.study.results import Record, cell, made, rows
from preceptor_trainer.study.thoughts.plan import STUDY

MEASURES = {
    "held_out": "two hops, people held out",
    "told": "two hops, people told of",
    "one_hop": "one hop",
    "malformed": "malformed",
    "thought": "tokens of thought",
}
SHOWN = {name: MEASURES[name] for name in ("held_out", "told", "one_hop")}
"""What is drawn."""


def markdown(records: Sequence[Record], *, level: int = 1) -> str:
    """The study's section, `level` deep."""
    found = rows(STUDY, records)
    head = [f"{'#' * level} {STUDY.name}: {STUDY.title}", "", STUDY.question, ""]
    if not found:
        return "\n".join([*head, "Nothing is done yet.", ""])
    table = Table(
        "Right answers by the oracle, sampled at temperature 1 (± 95 %), and what they took (means over seeds)",
        ("", "seeds", *MEASURES.values(), "steps", "judge calls", "seconds"),
        [
            (
                row.about,
                str(len(row.records)),
                *(cell(row.estimate(name)) for name in MEASURES),
                *(quantity(row.mean(figure)) for figure in ("steps", "judge_calls", "train_s")),
            )
            for row in found
        ],
    )
    return "\n".join([*head, as_markdown([table]), made(found)])
