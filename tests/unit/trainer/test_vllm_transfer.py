from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from preceptor_trainer.rollouts.engine import EngineError
from preceptor_trainer.rollouts.vllm_server import Away
from preceptor_trainer.rollouts.vllm_transfer import GlooGroup, Transfer, chunked, gloo, pack, sizes

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).view(3, 4),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.arange(6).view(2, 3).T,
}


@given(st.lists(st.integers(min_value=1, max_value=50), max_size=30), st.integers(min_value=1, max_value=60))
def test_chunks_hold_everything_in_order_and_end_with_what_makes_them_too_large(items: list[int], limit: int) -> None:
    chunks = chunked(items, limit)
    assert [place for chunk in chunks for place in chunk] == list(range(len(items)))
    for chunk in chunks[:-1]:
        assert sum(items[place] for place in chunk) > limit >= sum(items[place] for place in chunk[:-1])


@pytest.mark.parametrize("chunk_bytes", [1, 50, 1000])
def test_what_is_packed_can_be_unpacked_and_the_memory_of_a_copy_is_used_again(chunk_bytes: int) -> None:
    former = pack({name: tensor + 1 for name, tensor in TENSORS.items()}, chunk_bytes=chunk_bytes)
    packed = pack(TENSORS, former.chunks, chunk_bytes)
    assert [chunk.data_ptr() for chunk in packed.chunks] == [chunk.data_ptr() for chunk in former.chunks]
    parts = torch.split(torch.cat(packed.chunks), sizes(packed.dtypes, packed.shapes))
    for name, dtype, shape, part in zip(packed.names, packed.dtypes, packed.shapes, parts, strict=True):
        assert torch.equal(part.clone().view(getattr(torch, dtype)).view(shape), TENSORS[name])


class Server:
    """A worker that joins the group and receives, as vLLM's extension does; `dies` before it receives."""

    def __init__(self) -> None:
        self.dies = False
        self.asked: list[str] = []
        self.received: list[torch.Tensor] = []

    async def workers(self) -> int:
        return 1

    async def join_transfer(self, invitation: dict[str, object]) -> None:
        self.asked.append("join")
        host, port = str(invitation["host"]), int(str(invitation["port"]))

        def join() -> None:
            store = TCPStore(host, port, 2, is_master=False, timeout=timedelta(seconds=20))
            self._group = gloo(store, 1, 2, host, timedelta(seconds=20))

        await torch_thread(join)

    async def pause(self) -> None:
        self.asked.append("pause")

    async def start_update(self) -> None:
        self.asked.append("start")

    async def receive_update(self, description: dict[str, object]) -> None:
        self.asked.append("receive")
        if self.dies:
            self._group = None
            raise Away("it died")
        chunk = torch.empty(sum(len(c) for c in pack(TENSORS).chunks), dtype=torch.uint8)
        await torch_thread(lambda: self._group.broadcast(chunk, 0).wait())
        self.received.append(chunk)

    async def finish_update(self) -> None:
        self.asked.append("finish")


async def torch_thread(work: object) -> None:
    """In a daemon thread, so that a worker that hangs does not keep the test."""
    loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def run() -> None:
        work()  # type: ignore[operator]
        loop.call_soon_threadsafe(done.set_result, None)

    threading.Thread(target=run, daemon=True).start()
    await done


async def test_weights_arrive_and_a_server_that_died_is_joined_anew() -> None:
    server = Server()
    transfer = Transfer(server, "gloo", "127.0.0.1", 20)
    for _ in range(2):
        await transfer.send(pack(TENSORS))
    assert server.asked == ["join", *(["pause", "start", "receive", "finish"] * 2)]
    server.dies = True
    with pytest.raises(Away, match="it died"):
        await transfer.send(pack(TENSORS))
    server.dies, server.asked = False, []
    await transfer.send(pack(TENSORS))
    assert server.asked[0] == "join"
    assert all(torch.equal(chunk, pack(TENSORS).chunks[0]) for chunk in server.received)
    transfer.leave()


async def test_a_server_that_cannot_join_is_an_error_that_names_the_setting_and_nothing_waits_for_it() -> None:
    class Refusing(Server):
        async def join_transfer(self, invitation: dict[str, object]) -> None:
            raise EngineError("refused")

    with pytest.raises(EngineError, match=r"refused; was the policy's server started for rollouts\.vllm\.sync=gloo"):
        await Transfer(Refusing(), "gloo", "127.0.0.1", 600).send(pack(TENSORS))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
async def test_nccl_without_a_gpu_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(EngineError, match=r"NCCL is for GPUs, and torch sees none; set rollouts\.vllm\.sync"):
        await Transfer(Server(), "nccl", "127.0.0.1", 20).send(pack(TENSORS))


async def test_an_end_of_the_group_that_fails_in_an_unforeseen_way_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Joined(Server):
        async def join_transfer(self, invitation: dict[str, object]) -> None: ...

    def fails(group: GlooGroup) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(GlooGroup, "join", fails)
    with pytest.raises(ValueError, match="unforeseen"):
        async with asyncio.timeout(10):
            await Transfer(Joined(), "gloo", "127.0.0.1", 20).send(pack(TENSORS))


async def test_an_address_of_another_machine_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(EngineError, match=r"set .*rollouts\.vllm\.sync_host"):
        await Transfer(Server(), "gloo", "no.such.host.invalid", 1).send(pack(TENSORS))


async def test_the_address_that_workers_are_told_is_the_configured_one() -> None:
    assert GlooGroup("127.0.0.1", 3, 5).invitation | {"port": 0} == {
        "host": "127.0.0.1",
        "port": 0,
        "world_size": 4,
        "timeout_s": 5,
        "chunk_bytes": 256 * 1024**2,
    }
