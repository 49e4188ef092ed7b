from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from preceptor_services.batching import Batcher
from preceptor_services.engine import Engine, EngineError, Generation, Prompt, Served, Teacher
from preceptor_services.priority import Priority

ONE_TOKEN = Generation("completion", max_tokens=1)


async def test_a_question_that_waited_while_the_teacher_changed_is_answered_by_no_other(
    open_engine: Callable[..., Awaitable[Engine]], faulty_server: type
) -> None:
    engine = await open_engine(server := faulty_server(), retries=0)
    batcher, deadline = Batcher(engine, max_prompts=2), asyncio.get_running_loop().time() + 20
    before, other = engine.served, Served(Teacher("teacher", "other weights"))
    asking = asyncio.create_task(batcher.ask(Prompt("old"), ONE_TOKEN, deadline=deadline, served=before))
    await asyncio.sleep(0)
    replica = engine._replicas[0]
    replica.lose(EngineError("broken", "restarted"))
    engine._admit(replica, other)
    asking_anew = asyncio.create_task(batcher.ask(Prompt("new"), ONE_TOKEN, deadline=deadline, served=other))
    answer, _ = await asking
    assert "the teacher changed" in (answer.error or "")
    assert (await asking_anew)[0].error is None
    assert [body["prompt"] for body in server.bodies] == [["new"]]


async def test_a_batch_is_as_urgent_as_its_most_urgent_question(
    open_engine: Callable[..., Awaitable[Engine]], faulty_server: type
) -> None:
    engine = await open_engine(server := faulty_server(), concurrency=1)
    server.hold = asyncio.Event()
    deadline = asyncio.get_running_loop().time() + 20

    async def directly(text: str) -> None:
        await engine.ask([Prompt(text)], ONE_TOKEN, deadline=deadline, max_prompts=1, priority=Priority.BULK)

    batcher = Batcher(engine, max_prompts=2)
    asking = [asyncio.create_task(directly("under way"))]
    await server.arrived(1)
    asking.append(asyncio.create_task(directly("waiting")))
    await asyncio.sleep(0)
    async with asyncio.TaskGroup() as batch:
        for text, priority in (("training", Priority.TRAINING), ("interactive", Priority.INTERACTIVE)):
            batch.create_task(batcher.ask(Prompt(text), ONE_TOKEN, deadline=deadline, priority=priority))
        for _ in range(50):  # until both wait for the place
            await asyncio.sleep(0)
        server.hold.set()
    await asyncio.gather(*asking)
    assert [body["prompt"] for body in server.bodies] == [["under way"], ["training", "interactive"], ["waiting"]]
