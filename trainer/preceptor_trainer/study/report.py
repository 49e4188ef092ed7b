"""What a study leaves in its folder: results as JSONL, tables as Markdown, a picture as PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from preceptor_trainer.study.definition import Study
from preceptor_trainer.study.plots import plot_study
from preceptor_trainer.study.results import Record, rows


def write_report(
    folder: Path, study: Study, records: Sequence[Record], *, tables: str, shown: Mapping[str, str]
) -> Path:
    """Write all three anew, the picture with the measures `shown`. Returns the path of the Markdown."""
    name = study.name
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    written = folder / f"{name}.md"
    picture = f"\n![{name}]({name}.png)\n" if records else ""
    written.write_text(tables + picture, encoding="utf-8")
    if records:
        plot_study(folder / f"{name}.png", rows(study, records), shown)
    return written
