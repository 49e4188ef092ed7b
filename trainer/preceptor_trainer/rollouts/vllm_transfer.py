"""Weights straight into the memory of a vLLM server's workers, through vLLM's weight-transfer protocol (0.32).

    trainer, rank 0     join ......... start | broadcast of chunks ....... | finish
    worker, rank 1..    join ......... start | receive, load, layer by layer | finish

In: tensors by name. Out: they are what the server serves. A group of gloo (CPU) or NCCL (GPU) carries the bytes; all
else is asked over HTTP. Nothing that is pickled crosses it. The trainer needs no vLLM. A server that was restarted
has to be joined anew. Raises what the server's questions raise, and `Away` for a group that broke.

NCCL is what the server is started with by `--weight-transfer-config '{"backend": "nccl"}'`. Gloo is not among vLLM's
own ways: `vllm_extension` brings it, see `GLOO_ARGUMENTS`. Both get the same chunks.
"""

from __future__ import annotations

import asyncio
import base64
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.cuda import nccl
from torch.distributed import ProcessGroupGloo, TCPStore  # type: ignore[attr-defined]

from preceptor_trainer.errors import one_line
from preceptor_trainer.rollouts.engine import EngineError
from preceptor_trainer.rollouts.vllm_server import Away

CHUNK_BYTES = 256 * 1024**2
"""A chunk ends with the tensor that makes it larger than this."""
GLOO_ARGUMENTS = (
    "--weight-transfer-config",
    '{"backend": "gloo"}',
    "--worker-extension-cls",
    "preceptor_trainer.rollouts.vllm_extension.GlooExtension",
)
"""What a `vllm serve` that is given its weights by gloo is started with."""

_LAST_WORD_S = 1.0
_LOOPBACK = "127.0.0.1"


@dataclass
class Packed:
    """A copy of tensors, as bytes in a few chunks."""

    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    chunks: list[Tensor] = field(default_factory=list)

    @property
    def description(self) -> dict[str, object]:
        """As the worker needs it to unpack them."""
        return {"names": self.names, "dtype_names": self.dtypes, "shapes": self.shapes}


def pack(tensors: Mapping[str, Tensor], room: Sequence[Tensor] = (), chunk_bytes: int = CHUNK_BYTES) -> Packed:
    """A copy of `tensors`, in the memory of `room` (the chunks of a copy that is not needed any more) if it fits."""
    packed = Packed([*tensors], [str(t.dtype).rpartition(".")[2] for t in tensors.values()])
    packed.shapes = [list(tensor.shape) for tensor in tensors.values()]
    parts = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in tensors.values()]
    for number, places in enumerate(chunked([len(part) for part in parts], chunk_bytes)):
        chunk = [parts[place] for place in places]
        size = sum(map(len, chunk))
        fits = number < len(room) and len(room[number]) == size and room[number].device == chunk[0].device
        packed.chunks.append(torch.cat(chunk, out=room[number]) if fits else torch.cat(chunk))
    return packed


def chunked(sizes: Sequence[int], chunk_bytes: int) -> list[list[int]]:
    """The places of `sizes` in chunks, cut as vLLM cuts them."""
    chunks: list[list[int]] = []
    filled = chunk_bytes + 1
    for place, size in enumerate(sizes):
        if filled > chunk_bytes:
            chunks.append([])
            filled = 0
        chunks[-1].append(place)
        filled += size
    return chunks


def sizes(dtypes: Sequence[str], shapes: Sequence[Sequence[int]]) -> list[int]:
    """Bytes of each tensor."""
    return [math.prod(shape) * getattr(torch, dtype).itemsize for dtype, shape in zip(dtypes, shapes, strict=True)]


class Group(Protocol):
    """The trainer's end. Both calls block."""

    @property
    def invitation(self) -> dict[str, Any]:
        """What the workers need to join."""
        ...

    def join(self) -> None:
        """Returns when all have joined."""
        ...

    def broadcast(self, chunk: Tensor) -> None:
        """Returns when the bytes are on their way and `chunk` may change."""
        ...

    def leave(self) -> None:
        """Without a word to the others."""
        ...


class GlooGroup:
    """`host` is this machine's address as the server sees it."""

    def __init__(self, host: str, workers: int, timeout_s: float) -> None:
        self._size = workers + 1
        self._timeout = timedelta(seconds=timeout_s)
        self._store = TCPStore(host, 0, self._size, is_master=True, timeout=self._timeout, wait_for_workers=False)
        self._group: Any = None
        self.invitation = {
            "host": host,
            "port": self._store.port,
            "world_size": self._size,
            "timeout_s": timeout_s,
            "chunk_bytes": CHUNK_BYTES,
        }

    def join(self) -> None:
        self._group = gloo(self._store, 0, self._size, self._store.host, self._timeout)

    def broadcast(self, chunk: Tensor) -> None:
        self._group.broadcast(chunk, 0).wait()

    def leave(self) -> None:
        self._group = None


def gloo(store: TCPStore, rank: int, size: int, host: str, timeout: timedelta) -> Any:
    """A process group; on loopback alone if that is where the trainer is."""
    if host != _LOOPBACK:
        return ProcessGroupGloo(store, rank, size, timeout)
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [ProcessGroupGloo.create_device(hostname=_LOOPBACK)]
    options._timeout = timeout
    return ProcessGroupGloo(store, rank, size, options)


class NcclGroup:
    """On the current CUDA device. The workers are told NCCL's unique id, so that there is no store to meet at."""

    def __init__(self, workers: int) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError("NCCL is for GPUs, and torch sees none")
        self._size = workers + 1
        self._id: bytes = nccl.unique_id()  # type: ignore[no-untyped-call]
        self._communicator: Any = None
        self.invitation = {
            "nccl_unique_id_b64": base64.b64encode(self._id).decode(),
            "rank_offset": 1,
            "world_size": self._size,
            "packed": True,
            "packed_buffer_size_bytes": CHUNK_BYTES,
        }

    def join(self) -> None:
        self._communicator = nccl.init_rank(self._size, self._id, 0)  # type: ignore[no-untyped-call]
        # vLLM's workers begin with a sum over one number, and wait for everyone in it.
        nccl.all_reduce([torch.zeros(1, device="cuda")], comms=[self._communicator])  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()

    def broadcast(self, chunk: Tensor) -> None:
        nccl.broadcast([chunk], comms=[self._communicator])
        torch.cuda.current_stream().synchronize()

    def leave(self) -> None:
        self._communicator = None


def make_group(sync: Literal["gloo", "nccl"], host: str, workers: int, timeout_s: float) -> Group:
    """The trainer's end of `sync`."""
    return GlooGroup(host, workers, timeout_s) if sync == "gloo" else NcclGroup(workers)


class TransferServer(Protocol):
    """What a transfer asks of the server."""

    async def workers(self) -> int: ...
    async def join_transfer(self, invitation: dict[str, Any]) -> None: ...
    async def pause(self) -> None: ...
    async def start_update(self) -> None: ...
    async def receive_update(self, description: dict[str, object]) -> None: ...
    async def finish_update(self) -> None: ...


class Transfer:
    """To one server. What is not done within `timeout_s` is given up."""

    def __init__(self, server: TransferServer, sync: Literal["gloo", "nccl"], host: str, timeout_s: float) -> None:
        self._server = server
        self._sync = sync
        self._host = host
        self._timeout_s = timeout_s
        self._group: Group | None = None

    async def send(self, packed: Packed) -> None:
        """Raises what the server's questions raise; the server then has to be joined anew, which the next call does."""
        try:
            group = self._group or await self._join()
            self._group = None  # unless all goes well
            await self._server.pause()
            await self._server.start_update()
            await _both(self._server.receive_update(packed.description), self._broadcast(group, packed))
            await self._server.finish_update()
        except BaseException:
            self.leave()
            raise
        self._group = group

    def leave(self) -> None:
        """Forget the server."""
        if self._group:
            self._group.leave()
        self._group = None

    async def _join(self) -> Group:
        workers = await self._server.workers()
        try:
            group = make_group(self._sync, self._host, workers, self._timeout_s)
        except RuntimeError as error:
            raise EngineError(
                f"no process group for weights: {one_line(str(error))[:300]}; set rollouts.vllm.sync or "
                "rollouts.vllm.sync_host"
            ) from error
        try:
            await _both(self._server.join_transfer(group.invitation), _apart(group.join))
        except EngineError as error:
            raise EngineError(
                f"{error}; was the policy's server started for rollouts.vllm.sync={self._sync}? See docs/rollouts.md"
            ) from error
        return group

    async def _broadcast(self, group: Group, packed: Packed) -> None:
        for chunk in packed.chunks:
            await _apart(group.broadcast, chunk)


async def _both(asked: Coroutine[Any, Any, None], own: Coroutine[Any, Any, None]) -> None:
    """The server's answer counts: what it refuses, or does not live to see, leaves our own end waiting for it."""
    tasks = asyncio.create_task(asked), asyncio.create_task(own)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if not tasks[0].done():  # it may well know better why our end broke
            await asyncio.wait(tasks[:1], timeout=_LAST_WORD_S)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _apart(work: Callable[..., None], *arguments: object) -> None:
    """In a thread that nobody waits for at the end of the process: an end of a group may wait for one that is gone."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(error: Exception | None) -> None:
        if error and not done.cancelled():
            done.set_exception(error)
        elif not done.cancelled():
            done.set_result(None)

    def run() -> None:
        error: Exception | None = None
        try:
            work(*arguments)
        except RuntimeError as broken:
            error = Away(f"the process group with vLLM broke: {one_line(str(broken))[:300]}")
        except Exception as unforeseen:  # noqa: BLE001  is raised where it is waited for
            error = unforeseen
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="weight transfer", daemon=True).start()
    await done
