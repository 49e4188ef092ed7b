"""The processes of one run as torchrun starts them. Rank 0 leads; the others do what it says, when it says it.

    rank 0     tell "update" ---+--- compute ---+--- sum ---> goes on with its loop
    rank 1..   hear ............+--- compute ---+--- sum ---> hear ...

In: torchrun's environment. Out: the `Ranks` of this process; without torchrun one that is alone, for which nothing
here does anything. Words and what goes with them are bytes, no pickles. Guarantees: `hear` waits for as long as rank 0
is alive, however long rank 0 waits for judges; what all ranks do at once (`together`) is over within
`PATIENCE` of the slowest, and a rank that is gone is a `TrainError`, not a wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from preceptor_trainer.errors import TrainError, one_line

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others within one operation of all."""
_FOR_A_WORD = timedelta(days=365)
_SIGNS = ("gloo", "NCCL", "Connection", "Broken pipe")
"""What the texts of errors hold that come from the transport and not from the computation."""


class RankLost(TrainError):
    """Another process of the run has ended, or cannot be reached."""


@dataclass
class Ranks:
    """`rank` of `count`, the `local_rank`-th on its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    _words: dist.ProcessGroup | None = None
    _broken: bool = False

    @classmethod
    def join(cls) -> Ranks:
        """Those of the run that this process was started for. Waits until all of them are there.

        Raises `TrainError` if they do not come, or the environment is not torchrun's.
        """
        try:
            count = int(os.environ.get("WORLD_SIZE", "1"))
            if count == 1:
                return ALONE
            rank = int(os.environ["RANK"])
            local_rank = int(os.environ.get("LOCAL_RANK", "0"))
            if torch.cuda.is_available():
                torch.cuda.set_device(local_rank)
            dist.init_process_group(timeout=PATIENCE)
            words = dist.new_group(backend="gloo", timeout=_FOR_A_WORD)
        except (KeyError, ValueError, dist.DistError) as error:
            raise TrainError(
                f"the ranks of this run do not come together ({type(error).__name__}: {one_line(str(error))[:200]}): "
                "start them by torchrun, or one alone without WORLD_SIZE"
            ) from error
        return cls(rank, count, local_rank, words)

    def leave(self) -> None:
        """Rank 0 tells the others that the run is over; every rank lets go of the rest."""
        if self.count == 1:
            return
        if not self._broken:
            with suppress(RankLost):
                if self.rank == 0:
                    self.tell("end")
                dist.destroy_process_group()
        self._broken = True

    def tell(self, word: str, body: bytes = b"") -> None:
        """Rank 0, to all others."""
        if self.count > 1:
            message = bytearray(f"{word}\n".encode() + body)
            with self.together():
                dist.broadcast(torch.tensor([len(message)]), 0, group=self._words)
                dist.broadcast(torch.frombuffer(message, dtype=torch.uint8), 0, group=self._words)

    def hear(self) -> tuple[str, bytes]:
        """The next word of rank 0, and what goes with it."""
        with self.together():
            length = torch.zeros(1, dtype=torch.long)
            dist.broadcast(length, 0, group=self._words)
            message = torch.empty(int(length.item()), dtype=torch.uint8)
            dist.broadcast(message, 0, group=self._words)
        word, _, body = message.numpy().tobytes().partition(b"\n")
        return word.decode(), body

    def sum(self, values: Tensor) -> Tensor:
        """Over all ranks, the same on each."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def all(self, holds: Tensor) -> bool:
        """Whether it holds on every rank."""
        return bool(self.sum((~holds).float()).item() == 0)

    def spread(self, values: Tensor) -> Tensor:
        """Those of rank 0, on every rank."""
        if self.count > 1:
            dist.broadcast(values, 0)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """What only all ranks can do. Raises `RankLost` if one of them is gone; nothing can be done together then."""
        if self._broken:
            raise RankLost("another rank of this run has ended; go on with --resume")
        try:
            yield
        except TrainError:
            raise  # all ranks have come to the same one
        except BaseException as error:
            self._broken = self.count > 1
            transport = isinstance(error, dist.DistError) or any(sign in str(error) for sign in _SIGNS)
            if self.count > 1 and isinstance(error, RuntimeError) and transport:
                raise RankLost(
                    f"another rank of this run has ended or cannot be reached (rank {self.rank} saw: "
                    f"{one_line(str(error))[:200]}); go on with --resume"
                ) from error
            raise


ALONE = Ranks()
"""Of a run in one process."""
