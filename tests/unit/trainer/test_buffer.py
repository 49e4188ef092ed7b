from __future__ import annotations

import asyncio
import random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor_trainer.buffer import CohortBuffer, StalenessBuffer


def sampled(buffer: StalenessBuffer[str], version: int, *ids: str) -> None:
    """Admitted and sampled at `version`."""
    for id in ids:
        buffer.admit(id, version)
        buffer.sampled(id, version)


def answered(buffer: StalenessBuffer[str], *ids: str) -> None:
    for id in ids:
        buffer.answer(id, id.upper())


def test_slots_are_limit_plus_one_times_batch() -> None:
    buffer = StalenessBuffer[str](batch=2, limit=2, batches=9)
    sampled(buffer, 0, "a", "b", "c", "d", "e", "f")
    assert buffer.free == 0
    with pytest.raises(ValueError, match="no slot"):
        buffer.admit("g", 0)


def test_a_dropped_cohort_frees_its_slot_at_once() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=0, batches=1)
    buffer.admit("a", 0)
    buffer.drop("a")
    assert buffer.free == 1


def test_a_trained_batch_keeps_its_slots_until_it_is_released() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=0, batches=2)
    sampled(buffer, 0, "a")
    answered(buffer, "a")
    assert buffer.take(0) == ["A"]
    assert buffer.free == 0
    with pytest.raises(ValueError, match="not released"):
        buffer.take(1)
    assert buffer.release(1) == []
    assert buffer.free == 1


def test_no_more_is_admitted_than_the_remaining_batches_need() -> None:
    buffer = StalenessBuffer[str](batch=2, limit=3, batches=2)
    sampled(buffer, 0, "a", "b", "c", "d")
    assert buffer.free == 0
    buffer.drop("d")
    assert buffer.free == 1
    answered(buffer, "a", "b")
    buffer.take(0)
    buffer.release(1)
    sampled(buffer, 1, "e")
    answered(buffer, "c", "e")
    assert buffer.take(1) == ["C", "E"]
    buffer.release(2)
    assert buffer.free == 0
    with pytest.raises(ValueError, match="all batches"):
        buffer.take(2)


def test_the_oldest_ready_cohorts_come_first() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=3, batches=9)
    sampled(buffer, 0, "old")
    sampled(buffer, 1, "new")
    answered(buffer, "new", "old")
    assert buffer.take(1) == ["OLD"]


def b_trained_before_a_is_answered(buffer: StalenessBuffer[str]) -> list[str]:
    """And c after b; what the release threw away."""
    sampled(buffer, 0, "a", "b")
    answered(buffer, "b")
    assert buffer.take(0) == ["B"]
    stale = buffer.release(1)
    sampled(buffer, 1, "c")
    answered(buffer, "c")
    return stale


def test_wait_holds_a_step_for_a_cohort_that_could_not_be_trained_in_time_after_it() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=1, batches=9)
    assert b_trained_before_a_is_answered(buffer) == []
    assert buffer.take(1) is None
    answered(buffer, "a")
    assert buffer.take(1) == ["A"]


def test_drop_trains_what_is_ready_and_throws_away_what_is_then_too_old() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=1, batches=9, policy="drop")
    assert b_trained_before_a_is_answered(buffer) == []
    assert buffer.take(1) == ["C"]
    assert buffer.release(2) == ["a"]
    assert not buffer.held("a")
    assert buffer.free == 2


def test_drop_waits_for_a_sampling_that_would_be_too_old_after_the_step() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=1, batches=9, policy="drop")
    sampled(buffer, 0, "a")
    buffer.admit("b", 0)
    answered(buffer, "a")
    assert buffer.take(0) == ["A"]
    buffer.release(1)
    sampled(buffer, 1, "c")
    answered(buffer, "c")
    assert buffer.take(1) is None
    buffer.sampled("b", 0)
    assert buffer.take(1) == ["C"]
    assert buffer.release(2) == ["b"]


def test_rounds_wait_for_every_answer() -> None:
    buffer = StalenessBuffer[str](batch=2, limit=1, batches=9, in_rounds=True)
    assert buffer.free == 4
    sampled(buffer, 0, "a", "b", "c")
    assert buffer.free == 0
    answered(buffer, "c", "b")
    assert buffer.take(0) is None
    answered(buffer, "a")
    assert buffer.free == 0
    assert buffer.take(0) == ["A", "B"]
    assert buffer.free == 0
    buffer.release(1)
    assert buffer.free == 3


@pytest.mark.parametrize("call", ["drop", "answer"])
def test_an_unknown_cohort_is_an_error(call: str) -> None:
    buffer = StalenessBuffer[str](batch=1, limit=0, batches=1)
    arguments = ("x",) if call == "drop" else ("x", "X")
    with pytest.raises(ValueError, match="not held"):
        getattr(buffer, call)(*arguments)


def test_a_cohort_is_admitted_once_sampled_after_its_admission_and_answered_once() -> None:
    buffer = StalenessBuffer[str](batch=2, limit=0, batches=1)
    buffer.admit("a", 3)
    with pytest.raises(ValueError, match="already admitted"):
        buffer.admit("a", 3)
    with pytest.raises(ValueError, match="admitted at version 3"):
        buffer.sampled("a", 2)
    with pytest.raises(ValueError, match="not sampled"):
        buffer.answer("a", "A")
    buffer.sampled("a", 3)
    buffer.answer("a", "A")
    with pytest.raises(ValueError, match="already answered"):
        buffer.answer("a", "A")


class Interleaving:
    """Admissions, samplings, answers, drops, updates and releases in a random order that the buffer itself allows.

    Every cohort is in exactly one of the lists: its end is one of `trained`, `dropped` and `stale`.
    """

    def __init__(self, batch: int, limit: int, batches: int, policy: Literal["wait", "drop"], seed: int) -> None:
        self.batch, self.limit, self.batches, self.policy = batch, limit, batches, policy
        self.buffer = StalenessBuffer[str](batch, limit, batches=batches, policy=policy)
        self.rng = random.Random(seed)
        self.trainer = self.engine = self.admissions = 0
        self.admitted: list[str] = []
        self.outstanding: list[str] = []
        self.ready: list[str] = []
        self.training: list[str] = []
        self.versions: dict[str, int] = {}
        self.trained: list[str] = []
        self.dropped: list[str] = []
        self.stale: list[str] = []

    @property
    def waiting(self) -> list[str]:
        return self.admitted + self.outstanding + self.ready

    def one_of(self, ids: list[str]) -> str:
        """The newest more often than not: late answers are what the bound is about."""
        return ids[-1] if self.rng.random() < 0.6 else self.rng.choice(ids)

    def admit(self) -> None:
        if self.buffer.free:
            self.admissions += 1
            self.buffer.admit(f"c{self.admissions}", self.engine)
            self.admitted.append(f"c{self.admissions}")
            self.versions[f"c{self.admissions}"] = self.engine

    def sample(self) -> None:
        if self.admitted:
            id = self.one_of(self.admitted)
            self.admitted.remove(id)
            self.outstanding.append(id)
            # A sampling that has just ended may have begun when the weights were older.
            self.versions[id] = self.rng.randint(self.versions[id], self.engine)
            self.buffer.sampled(id, self.versions[id])

    def answer(self) -> None:
        if self.outstanding:
            id = self.one_of(self.outstanding)
            self.outstanding.remove(id)
            self.ready.append(id)
            self.buffer.answer(id, id)

    def drop(self) -> None:
        if self.waiting:
            id = self.one_of(self.waiting)
            for each in (self.admitted, self.outstanding, self.ready):
                if id in each:
                    each.remove(id)
            self.dropped.append(id)
            self.buffer.drop(id)

    def update(self) -> None:
        if self.training or self.trainer == self.batches:
            return
        batch = self.buffer.take(self.trainer)
        if batch is None:
            if self.policy == "drop":
                assert len(self.ready) < self.batch or self.admitted, "waits for a judge while a batch is ready"
            else:
                assert self.admitted or self.outstanding or self.buffer.free, "waits though all is answered"
            return
        assert len(batch) == self.batch
        for id in batch:
            assert self.trainer - self.versions[id] <= self.limit
            self.ready.remove(id)
        self.training = batch
        self.trainer += 1

    def release(self) -> None:
        if self.training:
            self.engine = self.trainer
            stale = self.buffer.release(self.engine)
            assert self.policy == "drop" or not stale
            for id in stale:
                assert self.versions[id] + self.limit < self.engine, "thrown away too early"
                (self.outstanding if id in self.outstanding else self.ready).remove(id)
            self.stale += stale
            self.trained += self.training
            self.training = []

    def check(self) -> None:
        assert sorted(self.buffer.ids) == sorted(self.waiting)
        assert self.buffer.ready == len(self.ready)
        assert self.buffer.outstanding == len(self.admitted) + len(self.outstanding)
        assert len(self.waiting) + len(self.training) <= (self.limit + 1) * self.batch
        ended = self.trained + self.training + self.dropped + self.stale
        assert len(set(ended + self.waiting)) == len(ended + self.waiting) == self.admissions

    def run(self) -> None:
        """Some of the way at random, some actions more often than others; then, with every answer there, to the end."""
        actions = [self.admit, self.sample, self.answer, self.update, self.release, self.drop]
        weights = [self.rng.random() for _ in actions[:-1]] + [self.rng.random() * 0.2]
        for action in self.rng.choices(actions, weights, k=self.rng.randrange(200)):
            action()
            self.check()
        while self.trainer < self.batches or self.training:
            self.release()
            while self.buffer.free:
                self.admit()
            while self.admitted:
                self.sample()
            while self.outstanding:
                self.answer()
            before = self.trainer
            self.update()
            self.check()
            assert self.trainer > before or self.trainer == self.batches, "stuck"
        assert not self.waiting
        assert self.buffer.free == 0
        assert self.admissions - len(self.dropped) - len(self.stale) == len(self.trained) == self.batches * self.batch


@pytest.mark.parametrize("policy", ["wait", "drop"])
@given(batch=st.integers(1, 3), limit=st.integers(0, 3), batches=st.integers(1, 30), seed=st.integers(0, 1 << 32))
@settings(max_examples=300, deadline=None)
def test_any_interleaving_ends_every_cohort_once_within_the_limit_and_none_is_left_over(
    batch: int, limit: int, batches: int, policy: Literal["wait", "drop"], seed: int
) -> None:
    Interleaving(batch, limit, batches, policy, seed).run()


def rounds(batch: int, limit: int, batches: int, outcomes: int, timing: int) -> list[list[str]]:
    """The groups admitted and the batches trained of a run whose `outcomes` are fixed and whose order is random."""
    order = random.Random(timing)
    buffer = StalenessBuffer[str](batch, limit, batches=batches, in_rounds=True)
    log: list[list[str]] = []
    outstanding: list[str] = []
    training = False
    version = admissions = 0
    while version < batches:
        step = order.choice(["admit", "answer", "take", "release"])
        if step == "admit" and buffer.free:
            group = [f"c{admissions + number}" for number in range(min(buffer.free, batch))]
            admissions += len(group)
            sampled(buffer, version, *group)
            outstanding += group
            log.append(group)
        elif step == "answer" and outstanding:
            id = outstanding.pop(order.randrange(len(outstanding)))
            if random.Random(f"{outcomes}/{id}").random() < 0.3:
                buffer.drop(id)
            else:
                answered(buffer, id)
        elif step == "take" and not training and (taken := buffer.take(version)):
            log.append(taken)
            training = True
        elif step == "release" and training:
            version += 1
            buffer.release(version)
            training = False
    return log


@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 8), *[st.integers(0, 10_000)] * 3)
@settings(max_examples=80, deadline=None)
def test_rounds_depend_on_the_outcomes_and_not_on_the_order_of_the_answers(
    batch: int, limit: int, batches: int, outcomes: int, timing: int, other_timing: int
) -> None:
    log = rounds(batch, limit, batches, outcomes, timing)
    assert log == rounds(batch, limit, batches, outcomes, other_timing)


async def test_a_taker_is_woken_by_the_last_answer_and_a_producer_by_the_release() -> None:
    buffer = CohortBuffer[str](batch=2, limit=0, batches=2)
    assert await buffer.room() == 2
    sampled(buffer.state, 0, "a", "b")
    taker = asyncio.create_task(buffer.take(0))
    assert await buffer.answer("a", "A")
    assert not taker.done()
    assert await buffer.answer("b", "B")
    assert await taker == ["A", "B"]
    producer = asyncio.create_task(buffer.room())
    await asyncio.sleep(0)
    assert not producer.done()
    assert await buffer.release(1) == []
    assert await producer == 2


async def test_a_drop_wakes_the_producer() -> None:
    buffer = CohortBuffer[str](batch=1, limit=0, batches=1)
    buffer.admit("a", 0)
    producer = asyncio.create_task(buffer.room())
    assert await buffer.drop("a")
    assert await producer == 1


async def test_a_sampling_wakes_the_taker_that_waits_for_it() -> None:
    buffer = CohortBuffer[str](batch=1, limit=0, batches=9, policy="drop")
    buffer.admit("a", 0)
    taker = asyncio.create_task(buffer.take(0))
    await buffer.sampled("a", 0)
    await buffer.answer("a", "A")
    assert await taker == ["A"]


async def test_what_was_thrown_away_is_told_to_whom_comes_with_its_verdict() -> None:
    buffer = CohortBuffer[str](batch=1, limit=1, batches=9, policy="drop")
    b_trained_before_a_is_answered(buffer.state)
    assert await buffer.take(1) == ["C"]
    assert await buffer.release(2) == ["a"]
    assert not buffer.held("a")
    assert not await buffer.answer("a", "A")
    assert not await buffer.drop("a")


async def test_a_closed_buffer_gives_what_is_complete_and_then_none() -> None:
    buffer = CohortBuffer[str](batch=1, limit=1, batches=9)
    sampled(buffer.state, 0, "a", "b")
    await buffer.answer("a", "A")
    await buffer.close()
    assert await buffer.take(0) == ["A"]
    await buffer.release(1)
    taker = asyncio.create_task(buffer.take(1))
    await buffer.drop("b")
    assert await taker is None
