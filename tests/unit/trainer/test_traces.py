from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.trace import StatusCode

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window
from preceptor_trainer.traces import CohortTraces
from traced import Recorded, about, id_of, parent_of, recording

ORIGINAL = TokenCandidate("original", Origin.ORIGINAL, (1,), "a")
ROLLOUTS = [TokenCandidate(f"rollout-{number}", Origin.ROLLOUT, (2, 3), "b", (-1.0, -1.0)) for number in range(2)]


def cohort(id: str, version: int = 3) -> PolicyCohort:
    judged = Judged({}, {}, ROLLOUTS[0], ORIGINAL)
    return PolicyCohort(id, Window(0, 0, (1,), (1,)), version, (ORIGINAL, *ROLLOUTS), judged)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as recorded:
        yield recorded


def test_a_cohorts_trace_goes_from_its_window_to_the_update_that_it_trained(recorded: Recorded) -> None:
    traces = CohortTraces("my-run")
    one, other = cohort("1-0"), cohort("2-0")
    for each in (one, other):
        with traces.rewriting(each.id):
            pass
        traces.begin(each.id)  # when it is admitted
    traces.sampled([one, other], since_s=0.0)
    with traces.submitting([one, other]):
        assert recorded.named("submit") == []
    for each in (one, other):
        traces.buffered(each.id)
    with traces.updating(4, [one, other]):
        pass
    update = recorded.one("update")
    roots = recorded.named("cohort")
    assert [about(root, "cohort") for root in roots] == ["1-0", "2-0"]
    assert len({root.context.trace_id for root in [*roots, update]}) == 3
    assert [link.context.span_id for link in update.links] == [id_of(root) for root in roots]
    for root in roots:
        of_it = recorded.trace(root.context.trace_id)
        assert [span.name for span in of_it] == ["rewrite", "rollouts", "submit", "buffer wait", "train", "cohort"]
        assert {parent_of(span) for span in of_it[:-1]} == {id_of(root)}
        train = of_it[-2]
        assert [link.context.span_id for link in train.links] == [id_of(update)]
        for span in (train, root):
            assert [about(span, name) for name in ("run", "step", "staleness", "chosen")] == ["my-run", 5, 1, "rollout"]
        assert root.end_time == train.end_time
    rollouts = recorded.named("rollouts")[0]
    assert [about(rollouts, name) for name in ("rollouts", "tokens", "version", "together")] == [2, 4, 3, 2]


def test_a_cohort_that_trains_nothing_ends_with_what_became_of_it(recorded: Recorded) -> None:
    traces = CohortTraces("r")
    traces.begin("tied")
    traces.begin("on its way")
    traces.begin("unjudged")
    for name in ("tied", "unjudged", "tied"):
        traces.dropped(name, name)
    traces.close()
    ends = [(about(root, "cohort"), about(root, "outcome")) for root in recorded.named("cohort")]
    assert ends == [("tied", "tied"), ("unjudged", "unjudged"), ("on its way", "left")]
    assert [root.status.status_code is StatusCode.ERROR for root in recorded.all] == [False, True, False]


def test_a_run_that_is_not_traced_keeps_nothing() -> None:
    traces = CohortTraces("r")
    with traces.rewriting("1-0"):
        pass
    traces.begin("1-0")
    assert traces.traceparent("1-0") is None
    assert not traces._stories
    with traces.updating(0, [cohort("1-0", 0)]):
        pass
