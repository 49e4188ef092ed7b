"""Reading the entries of the queue's streams, whatever they hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_client.queue.records import UnreadableEntry, as_text, printable, read_letter, read_outcome, read_task
from queued import a_task, an_answer

NAMES = ["run", "cohort", "task", "response", "dead", "reason", "attempts", "error"]
VALUES = st.binary() | st.sampled_from(
    ["run1", "c1", a_task().model_dump_json(), an_answer(a_task()).model_dump_json(), '"\\ud800"', "1" * 5000]
).map(str.encode)
ENTRIES = st.dictionaries(st.sampled_from(NAMES), VALUES)


def named(**fields: str) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in fields.items()}


@given(ENTRIES)
def test_any_entry_is_read_or_refused_with_words_that_can_be_written(texts: dict[str, bytes]) -> None:
    fields = {name.encode(): value for name, value in texts.items()}
    for read in (lambda: read_task(fields), lambda: read_outcome("1-0", fields)):
        refused: UnreadableEntry | None = None
        try:
            read()
        except UnreadableEntry as error:
            refused = error
        assert refused is None or printable(str(refused)).encode().startswith(b"cannot be decoded: ")
        assert refused is None or refused.run.encode() in (b"", fields.get(b"run"))
    assert read_letter("1700000000000-0", {name: as_text(value) for name, value in texts.items()}).at == 1.7e9


def test_a_task_is_read_only_under_its_own_name() -> None:
    payload = a_task("c1", "run1").model_dump_json()
    assert read_task(named(run="run1", cohort="c1", task=payload)) == a_task("c1", "run1")
    for run, cohort in (("run2", "c1"), ("run1", "c2"), ("", "c1")):
        with pytest.raises(UnreadableEntry, match="another's"):
            read_task(named(run=run, cohort=cohort, task=payload))


def test_a_response_is_read_only_under_its_own_name() -> None:
    payload = an_answer(a_task("c1")).model_dump_json()
    outcome = read_outcome("1-0", named(cohort="c1", response=payload))
    assert (outcome.cohort_id, outcome.response, outcome.dead) == ("c1", an_answer(a_task("c1")), None)
    with pytest.raises(UnreadableEntry, match="another's") as caught:
        read_outcome("1-0", named(cohort="c2", response=payload))
    assert caught.value.cohort == "c2"


def test_a_reason_is_cut_to_a_length() -> None:
    assert len(printable("x" * 10_000)) == 2_000
    assert printable("a\udcff") == "a\\udcff"
