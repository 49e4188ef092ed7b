"""Inside vLLM's workers: weights by gloo, for servers without a GPU. Only vLLM imports this module.

    vllm serve ... --weight-transfer-config '{"backend": "gloo"}'
                   --worker-extension-cls preceptor_trainer.rollouts.vllm_extension.GlooExtension

The other end is `vllm_transfer.GlooGroup`. A trainer that goes away is an error, after `timeout_s` at the latest, and
the worker serves on with whatever it had loaded: the trainer's mark says whether that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine, NCCLWeightTransferUpdateInfo

from preceptor_trainer.rollouts.vllm_transfer import chunked, gloo, sizes


class GlooExtension:
    """Loading this module is all there is to it."""


@dataclass
class GlooInitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    host: str
    port: int
    world_size: int
    timeout_s: float
    chunk_bytes: int


class GlooWeightTransferEngine(NCCLWeightTransferEngine):  # type: ignore[misc]
    """vLLM's own engine for NCCL with another way for the bytes."""

    init_info_cls = GlooInitInfo

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        timeout = timedelta(seconds=init_info.timeout_s)
        parallel = self.parallel_config
        rank = 1 + parallel.data_parallel_index * parallel.world_size + parallel.rank
        store = TCPStore(init_info.host, init_info.port, init_info.world_size, is_master=False, timeout=timeout)
        self._chunk_bytes = init_info.chunk_bytes
        self._group: Any = gloo(store, rank, init_info.world_size, init_info.host, timeout)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: NCCLWeightTransferUpdateInfo) -> None:
        names, dtypes, shapes = update_info.names, update_info.dtype_names, update_info.shapes
        bytes_of = sizes(dtypes, shapes)
        for places in chunked(bytes_of, self._chunk_bytes):
            chunk = torch.empty(sum(bytes_of[place] for place in places), dtype=torch.uint8)
            self._group.broadcast(chunk, 0).wait()
            parts = torch.split(chunk, [bytes_of[place] for place in places])
            self.model.load_weights(
                (names[place], part.view(getattr(torch, dtypes[place])).view(shapes[place]))
                for place, part in zip(places, parts, strict=True)
            )

    def shutdown(self) -> None:
        self._group = None


WeightTransferEngineFactory.register_engine("gloo", GlooWeightTransferEngine)
