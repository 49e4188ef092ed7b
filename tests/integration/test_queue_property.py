"""The queue against a small model of it, over random interleavings on a real Redis: every task ends exactly once."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from preceptor_client.queue import GROUP, CohortQueue, Delivery, Outcome, QueueOperations, connect
from preceptor_client.queue.records import as_text, read_outcome
from preceptor_client.queue.steps import IN_BYTES
from queued import a_task, an_answer

LEASE_MS = 10**9
MAX_DELIVERIES = 3
OPERATIONS = ("withdraw", "withdraw all", "forget", "replay", "purge")
RUNS, NAMES, CONSUMERS = ("run1", "run2"), ("a", "b"), ("w1", "w2")
COHORTS = [("run1", "a"), ("run1", "b"), ("run2", "a")]

ResultT = TypeVar("ResultT")
Cohort = tuple[str, str]


@dataclass
class Task:
    """One submission. `holder` None: waiting, or free to be taken over if `attempts` says that it was delivered."""

    serial: int
    attempts: int = 0
    holder: str | None = None
    delivered: bool = False
    handed_back: bool = False
    entry_id: str | None = None


class Model:
    def __init__(self) -> None:
        self.open: dict[Cohort, Task] = {}
        self.ended: dict[Cohort, str] = {}
        self.letters: list[Cohort] = []
        self.ends: Counter[int] = Counter()
        self.serials = 0

    def append(self, cohort: Cohort) -> None:
        self.serials += 1
        self.open.pop(cohort, None)
        self.open[cohort] = Task(self.serials)

    def end(self, cohort: Cohort, how: str) -> None:
        self.ends[self.open.pop(cohort).serial] += 1
        if how != "withdrawn":
            self.ended[cohort] = how
        if how == "dead":
            self.letters.append(cohort)

    def of(self, delivery: Delivery) -> Cohort | None:
        """The cohort that this delivery may still answer."""
        cohort = (delivery.task.run, delivery.task.request.cohort.id)
        task = self.open.get(cohort)
        return cohort if task and task.entry_id == delivery.entry_id else None


def machine(url: str) -> type[RuleBasedStateMachine]:
    class Interleavings(RuleBasedStateMachine):
        deliveries = Bundle("deliveries")

        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.redis = connect(url)
            self.namespace = uuid.uuid4().hex
            self.queue = CohortQueue(self.redis, namespace=self.namespace, max_deliveries=MAX_DELIVERIES)
            self.operations = QueueOperations(self.redis, namespace=self.namespace)
            self.model = Model()
            self.wait(self.queue.open_group())

        def wait(self, work: Awaitable[ResultT]) -> ResultT:
            return self.loop.run_until_complete(work)

        @rule(cohorts=st.lists(st.sampled_from(COHORTS), min_size=1))
        def submit(self, cohorts: list[Cohort]) -> None:
            for run, name in cohorts:
                new = (run, name) not in self.model.open and (run, name) not in self.model.ended
                assert self.wait(self.queue.submit(a_task(name, run))) == new
                if new:
                    self.model.append((run, name))

        @precondition(lambda self: any(task.holder is None for task in self.model.open.values()))
        @rule(
            target=deliveries,
            consumer=st.sampled_from(CONSUMERS),
            count=st.integers(1, 3),
            then=st.sampled_from(["keep", "lease runs out", "hand back", "fail", "settle", "bury"]),
        )
        def take(self, consumer: str, count: int, then: str) -> Any:
            free = {cohort: task for cohort, task in self.model.open.items() if task.holder is None}
            again = {cohort: task for cohort, task in free.items() if task.delivered}
            expected = list((again or free).items())
            if again:  # in the order of their entries, not of their expiry
                expected.sort(key=lambda pair: tuple(map(int, str(pair[1].entry_id).split("-"))))
            found = self.wait(self.queue.take(consumer, count=count, lease_ms=LEASE_MS))
            given = iter(found)
            for cohort, task in expected[:count]:
                task.attempts += 1
                if task.attempts > MAX_DELIVERIES:
                    self.model.end(cohort, "dead")
                    continue
                delivery = next(given)
                assert (delivery.task.run, delivery.task.request.cohort.id) == cohort
                assert delivery.attempt == task.attempts
                assert task.entry_id in (None, delivery.entry_id)
                task.holder, task.delivered, task.entry_id = consumer, True, delivery.entry_id
                task.handed_back = False
            assert next(given, None) is None
            for delivery in found:
                match then:
                    case "lease runs out":
                        self.lease_runs_out(delivery)
                    case "hand back" | "fail":
                        self.hand_back(delivery, consumer, "engine" if then == "fail" else None)
                    case "settle":
                        self.settle(delivery)
                    case "bury":
                        self.bury(delivery)
            return multiple(*found)

        @rule(delivery=deliveries)
        def lease_runs_out(self, delivery: Delivery) -> None:
            if (cohort := self.model.of(delivery)) and (holder := self.model.open[cohort].holder):
                key = f"{self.namespace}:cohorts"
                self.wait(self.redis.xclaim(key, GROUP, holder, 0, [delivery.entry_id], time=1, justid=True))
                self.model.open[cohort].holder = None

        @rule(delivery=deliveries, consumer=st.sampled_from(CONSUMERS))
        def renew(self, delivery: Delivery, consumer: str) -> None:
            cohort = self.model.of(delivery)
            task = self.model.open[cohort] if cohort else None
            if task and task.holder is None:
                return  # whose it is then is nobody's business
            holds = task is not None and task.holder == consumer
            assert self.wait(self.queue.renew(consumer, [delivery])) == ([] if holds else [delivery])

        @rule(delivery=deliveries, consumer=st.sampled_from(CONSUMERS), error=st.sampled_from([None, "engine"]))
        def hand_back(self, delivery: Delivery, consumer: str, error: str | None) -> None:
            cohort = self.model.of(delivery)
            task = self.model.open[cohort] if cohort else None
            if task and task.holder is None:
                return
            self.wait(self.queue.hand_back(consumer, [delivery], error))
            if task and task.holder == consumer:
                task.holder, task.handed_back = None, True
                task.attempts -= error is None

        @rule(delivery=deliveries)
        def settle(self, delivery: Delivery) -> None:
            cohort = self.model.of(delivery)
            assert self.wait(self.queue.settle(delivery, an_answer(delivery.task))) == (cohort is not None)
            if cohort:
                self.model.end(cohort, "answered")

        @rule(delivery=deliveries)
        def bury(self, delivery: Delivery) -> None:
            cohort = self.model.of(delivery)
            assert self.wait(self.queue.bury(delivery, "no")) == (cohort is not None)
            if cohort:
                self.model.end(cohort, "dead")

        @rule(run=st.sampled_from(RUNS), names=st.sets(st.sampled_from(NAMES)), what=st.sampled_from(OPERATIONS))
        def operate(self, run: str, names: set[str], what: str) -> None:
            match what:
                case "withdraw":
                    self.withdraw(run, sorted(names))
                case "withdraw all":
                    self.withdraw(run, None)
                case "forget":
                    outcomes = [outcome for outcome in self.outcomes(run) if outcome.cohort_id in names]
                    self.wait(self.queue.forget(run, outcomes))
                    for outcome in outcomes:
                        del self.model.ended[run, outcome.cohort_id]
                case "replay":
                    self.replay()
                case "purge":
                    gone = [cohort for cohort in self.model.letters if cohort[0] == run]
                    assert self.wait(self.operations.purge_dead(run)) == len(gone)
                    self.model.letters = [cohort for cohort in self.model.letters if cohort not in gone]

        def withdraw(self, run: str, names: list[str] | None) -> None:
            cohorts = [(run, name) for name in (NAMES if names is None else names)]
            there = [cohort for cohort in cohorts if cohort in self.model.open or cohort in self.model.ended]
            assert self.wait(self.queue.withdraw(run, names)) == len(there)
            for cohort in there:
                if cohort in self.model.open:
                    self.model.end(cohort, "withdrawn")
                self.model.ended.pop(cohort, None)

        def replay(self) -> None:
            back = []
            for cohort in self.model.letters:
                if cohort not in self.model.open and self.model.ended.get(cohort) != "answered":
                    self.model.ended.pop(cohort, None)
                    self.model.append(cohort)
                    back.append(cohort)
            assert self.wait(self.operations.replay()) == len(back)
            for cohort in back:
                self.model.letters.remove(cohort)

        @invariant()
        def redis_holds_what_the_model_holds(self) -> None:
            status = self.wait(self.operations.status())
            tasks = self.model.open
            assert status.in_flight == sum(task.delivered and not task.handed_back for task in tasks.values())
            assert status.waiting == len(tasks) - status.in_flight
            assert status.dead == len(self.model.letters)
            for run in RUNS:
                names = {cohort[1] for cohort in (*tasks, *self.model.ended) if cohort[0] == run}
                assert self.wait(self.queue.missing(run, NAMES)) == [name for name in NAMES if name not in names]
                counted = status.runs.get(run)
                assert (counted.waiting + counted.in_flight if counted else 0) == sum(run == each[0] for each in tasks)
                assert (counted.dead if counted else 0) == sum(run == each[0] for each in self.model.letters)
                found = [(outcome.cohort_id, "dead" if outcome.dead else "answered") for outcome in self.outcomes(run)]
                assert sorted(found) == sorted((name, how) for (of, name), how in self.model.ended.items() if of == run)
            assert all(count == 1 for count in self.model.ends.values())

        def outcomes(self, run: str) -> list[Outcome]:
            """Those that lie there now."""
            command = ("XRANGE", f"{self.namespace}:verdicts:{run}", "-", "+")
            execute: Any = self.redis.execute_command
            entries = self.wait(execute(*command, **IN_BYTES))
            return [read_outcome(as_text(entry_id), fields) for entry_id, fields in entries]

        def teardown(self) -> None:
            self.wait(self.redis.aclose())
            self.loop.close()

    return Interleavings


def test_whatever_the_order_every_task_ends_once(redis_url: str) -> None:
    run_state_machine_as_test(
        machine(redis_url),
        settings=settings(
            max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
