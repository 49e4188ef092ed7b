from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor_trainer.buffer import CohortBuffer, StalenessBuffer


def admitted(buffer: StalenessBuffer[str], version: int, *ids: str) -> None:
    for id in ids:
        buffer.admit(id, version)


def test_slots_are_limit_plus_one_times_batch() -> None:
    buffer = StalenessBuffer[str](batch=2, limit=2)
    admitted(buffer, 0, "a", "b", "c", "d", "e", "f")
    assert buffer.free == 0
    with pytest.raises(ValueError, match="no slot"):
        buffer.admit("g", 0)


def test_a_dropped_cohort_frees_its_slot_at_once() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=0)
    buffer.admit("a", 0)
    buffer.drop("a")
    assert buffer.free == 1


def test_a_trained_batch_keeps_its_slots_until_it_is_released() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=0)
    buffer.admit("a", 0)
    buffer.answer("a", "A")
    assert buffer.take(0) == ["A"]
    assert buffer.free == 0
    buffer.release()
    assert buffer.free == 1


def test_the_oldest_ready_cohorts_come_first() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=3)
    buffer.admit("old", 0)
    buffer.admit("new", 1)
    buffer.answer("new", "new")
    buffer.answer("old", "old")
    assert buffer.take(1) == ["old"]


def test_a_step_waits_for_a_cohort_that_could_not_be_trained_in_time_after_it() -> None:
    buffer = StalenessBuffer[str](batch=1, limit=1)
    admitted(buffer, 0, "a", "b")
    buffer.answer("b", "b")
    assert buffer.take(0) == ["b"]
    buffer.release()
    buffer.admit("c", 1)
    buffer.answer("c", "c")
    assert buffer.take(1) is None
    buffer.answer("a", "a")
    assert buffer.take(1) == ["a"]


@pytest.mark.parametrize("call", ["drop", "answer"])
def test_an_unknown_cohort_is_an_error(call: str) -> None:
    buffer = StalenessBuffer[str](batch=1, limit=0)
    arguments = ("x",) if call == "drop" else ("x", "X")
    with pytest.raises(ValueError, match="not admitted"):
        getattr(buffer, call)(*arguments)


def test_a_cohort_cannot_be_admitted_twice_or_sampled_before_its_admission() -> None:
    buffer = StalenessBuffer[str](batch=2, limit=0)
    buffer.admit("a", 3)
    with pytest.raises(ValueError, match="already"):
        buffer.admit("a", 3)
    with pytest.raises(ValueError, match="admitted at version 3"):
        buffer.sampled("a", 2)


@given(batch=st.integers(1, 2), limit=st.integers(0, 3), seed=st.integers(0, 10_000))
@settings(max_examples=150, deadline=None)
def test_any_interleaving_trains_every_answered_cohort_once_and_within_the_limit(
    batch: int, limit: int, seed: int
) -> None:
    """Samplings, answers in any order, drops, updates and releases in any order that the buffer itself allows."""
    rng = random.Random(seed)
    buffer = StalenessBuffer[tuple[str, int]](batch, limit)
    trainer = engine = admissions = 0
    unsampled: list[str] = []
    sampled: dict[str, int] = {}
    trained: list[str] = []
    dropped: list[str] = []
    training = False

    def update() -> bool:
        nonlocal trainer, training
        taken = buffer.take(trainer)
        if taken is None:
            return False
        assert len(taken) == batch
        for id, version in taken:
            assert version <= trainer <= version + limit
            trained.append(id)
        trainer, training = trainer + 1, True
        return True

    for _ in range(200):
        assert 0 <= len(buffer.ids) + training * batch <= (limit + 1) * batch
        step = rng.choice(["admit", "admit", "sample", "sample", "answer", "drop", "update", "update", "release"])
        if step == "admit" and buffer.free:
            admissions += 1
            buffer.admit(f"c{admissions}", engine)
            unsampled.append(f"c{admissions}")
        elif step == "sample" and unsampled:
            id = unsampled.pop(rng.randrange(len(unsampled)))
            sampled[id] = engine
            buffer.sampled(id, engine)
        elif step == "answer" and sampled:
            id = rng.choice(sorted(sampled))
            buffer.answer(id, (id, sampled.pop(id)))
        elif step == "drop" and sampled and rng.random() < 0.2:
            dropped.append(rng.choice(sorted(sampled)))
            del sampled[dropped[-1]]
            buffer.drop(dropped[-1])
        elif step == "update" and not training:
            update()
        elif step == "release" and training:
            buffer.release()
            engine, training = trainer, False

    # The buffer is never stuck: with every answer there and its slots refilled, the next update goes through.
    if training:
        buffer.release()
        engine = trainer
    for id in unsampled:
        buffer.sampled(id, engine)
        sampled[id] = engine
    while buffer.free:
        admissions += 1
        buffer.admit(f"c{admissions}", engine)
        sampled[f"c{admissions}"] = engine
    for id, version in sampled.items():
        buffer.answer(id, (id, version))
    assert update()
    assert len(set(trained)) == len(trained)
    assert not set(trained) & set(dropped)


async def test_a_taker_is_woken_by_the_last_answer_and_a_producer_by_the_release() -> None:
    buffer = CohortBuffer[str](batch=2, limit=0)
    assert await buffer.room() == 2
    admitted(buffer.state, 0, "a", "b")
    taker = asyncio.create_task(buffer.take(0))
    await buffer.answer("a", "A")
    assert not taker.done()
    await buffer.answer("b", "B")
    assert await taker == ["A", "B"]
    producer = asyncio.create_task(buffer.room())
    await asyncio.sleep(0)
    assert not producer.done()
    await buffer.release()
    assert await producer == 2


async def test_a_drop_wakes_the_producer() -> None:
    buffer = CohortBuffer[str](batch=1, limit=0)
    buffer.state.admit("a", 0)
    producer = asyncio.create_task(buffer.room())
    await buffer.drop("a")
    assert await producer == 1


async def test_a_closed_buffer_gives_what_is_complete_and_then_none() -> None:
    buffer = CohortBuffer[str](batch=1, limit=1)
    admitted(buffer.state, 0, "a", "b")
    await buffer.answer("a", "A")
    await buffer.close()
    assert await buffer.take(0) == ["A"]
    taker = asyncio.create_task(buffer.take(1))
    await buffer.drop("b")
    assert await taker is None
