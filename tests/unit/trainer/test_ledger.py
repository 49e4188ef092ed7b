from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError
from preceptor_trainer.ledger import CohortLedger, cut_back, read_ledger

GOOD, BAD = (TokenCandidate(id, Origin.ROLLOUT, (1,), id) for id in ("good", "bad"))
COHORT = PolicyCohort("0-7", Window(0, 7, (1,), (2,)), 2, (GOOD, BAD))
JUDGED = PolicyCohort(
    "0-8", COHORT.window, 2, (GOOD, BAD), Judged({"good": 0.1 + 0.2, "bad": 0.0}, {}, GOOD, BAD, failed=("other",))
)


def test_every_end_of_a_cohort_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cohorts.jsonl"
    with CohortLedger(path) as ledger:
        ledger.trained(JUDGED, step=3)
        ledger.trained(COHORT, step=4)
        ledger.dropped("0-9", "tied", "none givén\n")
        assert ledger.bytes == path.stat().st_size, "nothing waits in a buffer"
    none: dict[str, Any] = {"scores": {}, "failed": [], "chosen": None, "rejected": None}
    assert read_ledger(path) == [
        {
            "cohort": "0-8",
            "outcome": "trained",
            "step": 3,
            "version": 2,
            "reason": None,
            "scores": {"good": 0.1 + 0.2, "bad": 0.0},
            "failed": ["other"],
            "chosen": "good",
            "rejected": "bad",
        },
        {"cohort": "0-7", "outcome": "trained", "step": 4, "version": 2, "reason": None, **none},
        {"cohort": "0-9", "outcome": "tied", "step": None, "version": None, "reason": "none givén\n", **none},
    ]


def test_it_goes_on_at_the_end_and_is_cut_back_to_a_length_it_had(tmp_path: Path) -> None:
    path = tmp_path / "cohorts.jsonl"
    with CohortLedger(path) as ledger:
        ledger.dropped("a", "tied", "x")
        ledger.flush_to_disk()
        length = ledger.bytes
        ledger.dropped("b", "tied", "x")
    cut_back(path, length)
    with CohortLedger(path) as ledger:
        assert ledger.bytes == length
        ledger.dropped("c", "tied", "x")
    assert [end["cohort"] for end in read_ledger(path)] == ["a", "c"]


def test_a_last_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cohorts.jsonl"
    with CohortLedger(path) as ledger:
        ledger.dropped("a", "tied", "x")
        whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        assert [end["cohort"] for end in read_ledger(path)] == ["a"]


def test_a_file_that_never_was_so_long_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"12345")
    with pytest.raises(TrainError, match=r"metrics\.jsonl has 5 bytes and the checkpoint knows of 6"):
        cut_back(path, 6)
    assert path.read_bytes() == b"12345"
    cut_back(tmp_path / "new", 0)
    assert (tmp_path / "new").read_bytes() == b""
    with pytest.raises(TrainError, match=r"new has 0 bytes"):
        cut_back(tmp_path / "new", 1)
