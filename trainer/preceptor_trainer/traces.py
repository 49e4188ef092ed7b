"""Cohorts' stories as the trainer tells them: each is a trace of its own, from its window to the update it trained.

    cohort                      from its window to its end: the root, which the trainer holds
      rewrite                   the rewrite service tells what is below
      rollouts, submit
      queue wait, delivery      told by the judge worker; below them judging, the engine's requests, and `settle`
      verdict wait              below `settle`: from the stream to the trainer
      buffer wait
      train ............ link ---> update     a trace of its own, which links to every cohort of its batch

In: what happens to cohorts, by their ids. Out: spans; nothing, and nothing is kept, where the process does not trace.
Guarantees: a cohort's trace ends once, with `train` or with why it was dropped; no texts. See docs/tracing.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from preceptor_client import tracing
from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import PolicyCohort

_NO_FAULT = ("tied", "left")
"""Ends of cohorts that train nothing although all went well."""


@dataclass
class _Story:
    """A trace that has not ended: its root, and since when the cohort lies in the buffer."""

    root: tracing.Span
    buffered_s: float = 0.0


class CohortTraces:
    """Of one run."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._stories: dict[str, _Story] = {}

    def begin(self, id: str) -> None:
        """A window is on its way, from here on or already."""
        if tracing.is_on() and id not in self._stories:
            self._stories[id] = _Story(tracing.begin("cohort", {"run": self._run, "cohort": id}))

    def traceparent(self, id: str) -> str | None:
        """Where what others do for it belongs."""
        return self._stories[id].root.traceparent if id in self._stories else None

    def rewriting(self, id: str) -> AbstractContextManager[tracing.Span]:
        """For the block in which its rewrite is asked for."""
        self.begin(id)
        return tracing.span("rewrite", parent=self.traceparent(id))

    def sampled(self, cohorts: Sequence[PolicyCohort], since_s: float) -> None:
        """These were sampled, together."""
        for cohort in cohorts:
            rollouts = [each for each in cohort.candidates if each.origin is Origin.ROLLOUT]
            about: tracing.About = {
                "rollouts": len(rollouts),
                "tokens": sum(len(each.ids) for each in rollouts),
                "version": cohort.version,
                "together": len(cohorts),
            }
            tracing.record("rollouts", about, parent=self.traceparent(cohort.id), since_s=since_s)

    @contextmanager
    def submitting(self, cohorts: Sequence[PolicyCohort]) -> Iterator[None]:
        """For the block in which these go to the judges, which have them before it ends."""
        parents = [self.traceparent(cohort.id) for cohort in cohorts]
        since_s = time.time()
        yield
        for parent in parents:
            tracing.record("submit", kind="producer", parent=parent, since_s=since_s)

    def buffered(self, id: str) -> None:
        """It has its verdicts, and waits for an update."""
        if id in self._stories:
            self._stories[id].buffered_s = time.time()

    @contextmanager
    def updating(self, version: int, batch: Sequence[PolicyCohort]) -> Iterator[None]:
        """For the block in which update `version` (from 0) trains on `batch`; their stories end with it."""
        roots = [self.traceparent(cohort.id) for cohort in batch]
        step: tracing.About = {"run": self._run, "step": version + 1}
        with tracing.span("update", {**step, "cohorts": len(batch)}, links=roots) as update:
            began_s = time.time()
            yield
        ended_s = time.time()
        for cohort in batch:
            if (story := self._stories.pop(cohort.id, None)) is None:
                continue
            parent = story.root.traceparent
            about: tracing.About = {
                **step,
                "staleness": version - cohort.version,
                "chosen": cohort.judged.chosen.origin.value if cohort.judged else None,
            }
            tracing.record("buffer wait", parent=parent, since_s=story.buffered_s, until_s=began_s)
            links = [update.traceparent]
            tracing.record("train", about, parent=parent, since_s=began_s, until_s=ended_s, links=links)
            story.root.set({"outcome": "trained", **about})
            story.root.end(ended_s)

    def dropped(self, id: str, what: str) -> None:
        """It will train nothing."""
        if story := self._stories.pop(id, None):
            story.root.set({"outcome": what})
            if what not in _NO_FAULT:
                story.root.fail(what)
            story.root.end()

    def close(self) -> None:
        """The run stops; what is still on its way is left, and begins anew with a resume."""
        for id in list(self._stories):
            self.dropped(id, "left")
