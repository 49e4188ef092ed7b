"""The cohort that goes to and fro: eight candidates, about 4 KB of text, and a verdict for each candidate and axis.

In: a seed, axes. Out: a `JudgeTask` and the `JudgeResponse` to it. `keep` writes both as JSON for the sides that know
nothing of the contract.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

from preceptor_client.contract import (
    AxisReport,
    Candidate,
    Cohort,
    JudgeRequest,
    JudgeResponse,
    JudgeTask,
    Order,
    Origin,
    Provenance,
    Sampling,
    ScheduleName,
    Status,
    Usage,
    Verdict,
    Votes,
)

RUN = "benchmark-0123456789ab.1"
CANDIDATES, PREFIX_CHARS, SUFFIX_CHARS = 8, 1_000, 375
TASK, RESPONSE = "task.json", "response.json"


def a_task(name: str, axes: Sequence[str], seed: int = 0) -> JudgeTask:
    """English prose: a prefix and eight ways to go on, all different."""
    dice = random.Random(seed)
    prose = " ".join(" ".join(text.split()) for text in topics.values())

    def excerpt(length: int) -> str:
        start = dice.randrange(len(prose) - length)
        return prose[start : start + length]

    candidates = tuple(
        Candidate(id=f"c{n}", origin=Origin.ROLLOUT if n else Origin.ORIGINAL, text=excerpt(SUFFIX_CHARS))
        for n in range(CANDIDATES)
    )
    cohort = Cohort(id=name, prefix=excerpt(PREFIX_CHARS), candidates=candidates)
    return JudgeTask(run=RUN, request=JudgeRequest(cohort=cohort, axes=tuple(axes)))


def a_response(task: JudgeTask, seed: int = 0) -> JudgeResponse:
    """As a judge would give it, with votes and provenance."""
    dice = random.Random(seed)
    candidates, axes = task.request.cohort.candidates, task.request.axes
    provenance = Provenance(
        teacher="Qwen/Qwen3-4B-Instruct-2507",
        revision="cdbee75f17c01a7cc42f958dc650907174af0554",
        rubric="default/quality",
        rubric_hash="5f0c2b7e9d41a386",
        sampling=Sampling(),
        schedule=ScheduleName.ALL_PAIRS,
        order=Order.BOTH,
    )
    return JudgeResponse(
        cohort_id=task.request.cohort.id,
        verdicts=tuple(
            Verdict(
                candidate_id=candidate.id,
                axis=axis,
                status=Status.OK,
                score=dice.random(),
                votes=Votes(counts={"won": dice.randrange(8), "lost": dice.randrange(8), "tied": dice.randrange(8)}),
            )
            for axis in axes
            for candidate in candidates
        ),
        axes={
            axis: AxisReport(
                provenance=provenance,
                usage=Usage(calls=56, prompt_tokens=28_431, completion_tokens=56),
                position_consistency=0.9464285714285714,
                position_bias=-0.017857142857142856,
            )
            for axis in axes
        },
        elapsed_s=0.7312345,
    )


def keep(folder: Path, axes: Sequence[str]) -> tuple[int, int]:
    """Write one of each into `folder`; their sizes in bytes."""
    task = a_task("w0000000", axes)
    texts = {TASK: task.model_dump_json(), RESPONSE: a_response(task).model_dump_json()}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(texts[TASK].encode()), len(texts[RESPONSE].encode())


def load(folder: Path) -> tuple[bytes, bytes]:
    """Both, as they were written."""
    return (folder / TASK).read_bytes(), (folder / RESPONSE).read_bytes()
