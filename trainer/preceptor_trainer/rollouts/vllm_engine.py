"""Sampling by the policy's own vLLM server, which is given new weights in place.

In: token ids. Out: `Rollouts`. `load` keeps a copy of the weights, as a file that the server reads or in memory from
where a process group takes it (`rollouts.vllm.sync`), has the server load it and drop its prefix cache, and then asks
for log-probs of a probe text and compares them with the model's own: a server that serves anything but the weights of
`version` is an error, never a silent bias. Sampling and loading never overlap, so a sample runs on one version.

The server may die, hang or be restarted, with the weights of its start folder, at any moment. It bears a mark while it
has the weights, which a restart loses; a sample counts only if the mark is still there after it. A server that lost it
is given the copy again, and the sample is repeated. A server that is away is waited for, up to
`rollouts.vllm.patience_s` from the first failed try of a sample or load; only the first load does not wait.

The server must be started from a folder written by `export_for_vllm`: on a CPU, vLLM 0.32 keeps a packed copy of an
output matrix that is tied to the embeddings, and a reload leaves that copy as it was. The export unties them.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.patience import Patience
from preceptor_trainer.rollouts.config import VllmConfig
from preceptor_trainer.rollouts.engine import EngineError, Rollouts
from preceptor_trainer.rollouts.vllm_server import UNMARKED, Away, VllmServer
from preceptor_trainer.rollouts.vllm_transfer import Packed, Transfer, pack

PROBE_TOKENS = 16
_COPIES = "policy-version-"

T = TypeVar("T")


def export_for_vllm(model: Any, tokenizer: Any, directory: Path) -> Path:
    """Write the folder that the policy's server is to be started from: the policy, its embeddings untied."""
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _save_weights(model, directory)
    return directory


def _save_weights(model: Any, directory: Path) -> None:
    """Every tensor of `model` by name, tied ones as well, which `save_pretrained` would leave out."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        # safetensors refuses tensors that share memory.
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True)
class _Copy:
    """The weights of `version`, in a folder or in memory, and what the model itself says of a probe text."""

    version: int
    weights: Path | Packed
    probe: tuple[int, ...]
    logps: torch.Tensor


class VllmEngine:
    """`version` is unknown (-1) until the first `load`. `sync_dir` is this engine's alone."""

    def __init__(self, config: VllmConfig, sync_dir: Path, *, eos_id: int | None = None) -> None:
        self._config = config
        self._sync_dir = sync_dir.resolve()
        self._stop_ids = [] if eos_id is None else [eos_id]
        self._server = VllmServer(config.url, config.model, config.timeout_s)
        self._turn = asyncio.Lock()
        self._copy: _Copy | None = None
        self._own = f"preceptor-{secrets.token_hex(8)}-"
        self._numbers = count()
        self._mark: str | None = None
        """The mark that the server bears while it has the weights of `_copy`; None: hand them over first."""
        self._transfer = (
            None if config.sync == "files" else Transfer(self._server, config.sync, config.sync_host, config.timeout_s)
        )
        self._spare: list[torch.Tensor] = []
        """Memory of a copy that is not needed any more."""
        self.seconds: dict[str, float] = {}
        """What the last load took: `copy`, with the model's own view of the probe beside it, `deliver` and `check`."""
        self.waiting: str | None = None

    @property
    def version(self) -> int:
        return self._copy.version if self._copy else -1

    async def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        k: int,
        n_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Rollouts:
        async with self._turn:
            if (weights := self._copy) is None:
                raise EngineError("the vLLM policy engine has no weights yet: load them before sampling")
            # Greedy rollouts of a prefix are all the same, and vLLM refuses to sample them more than once.
            n = k if temperature > 0 else 1

            async def attempt() -> Rollouts:
                mark = self._mark or await self._hand_over(weights)
                rows = await self._server.sample(
                    prefixes,
                    n=n,
                    n_tokens=n_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    stop_ids=self._stop_ids,
                )
                await self._check_mark(mark)
                return Rollouts(weights.version, tuple(row * (k // n) for row in rows))

            return await self._ride(attempt)

    async def load(self, model: Any, version: int) -> None:
        async with self._turn:
            former = self._copy
            began = time.perf_counter()
            kept, (probe, logps) = await asyncio.gather(
                asyncio.to_thread(self._keep, model, version), asyncio.to_thread(_probe, model, version)
            )
            self.seconds = {"copy": time.perf_counter() - began}
            weights = _Copy(version, kept, probe, logps)
            if former is None:
                try:
                    await self._hand_over(weights)
                except Away as away:
                    raise EngineError(f"{away}; start the policy's server or set rollouts.vllm.url") from away
            else:
                await self._ride(partial(self._hand_over, weights))
                if isinstance(former.weights, Packed):
                    self._spare = former.weights.chunks
                elif former.weights != weights.weights:
                    await asyncio.to_thread(shutil.rmtree, former.weights, ignore_errors=True)

    async def close(self) -> None:
        if self._transfer:
            self._transfer.leave()
        await self._server.close()
        await asyncio.to_thread(self._remove_copies)

    async def _ride(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, tried again for as long as the server is away."""
        patience = Patience(self._config.patience_s)
        try:
            while True:
                try:
                    return await attempt()
                except Away as away:
                    self._mark = None
                    if self._transfer:
                        self._transfer.leave()
                    self.waiting = str(away)
                    if not await patience.pause():
                        raise EngineError(
                            f"{away}; it was waited for {self._config.patience_s:.0f} s (rollouts.vllm.patience_s): "
                            "start the policy's server again, then go on with --resume"
                        ) from away
        finally:
            self.waiting = None

    async def _hand_over(self, weights: _Copy) -> str:
        """The mark that the server bears now. Set first and looked at last: no restart in between goes unnoticed."""
        self._mark = None
        mark = f"{self._own}{next(self._numbers)}"
        await self._server.set_mark(mark)
        began = time.perf_counter()
        if isinstance(weights.weights, Path):
            await self._server.reload(weights.weights)
        else:
            assert self._transfer
            await self._transfer.send(weights.weights)
        delivered = time.perf_counter()
        served = torch.tensor(await self._server.logps(weights.probe))
        await self._check_mark(mark)
        self.seconds |= {"deliver": delivered - began, "check": time.perf_counter() - delivered}
        difference = (weights.logps - served).abs().mean().item()
        if not difference <= self._config.tolerance:
            raise EngineError(
                f"after loading version {weights.version}, vLLM's log-probs differ from the policy's by "
                f"{difference:.4f} nats a token (rollouts.vllm.tolerance is {self._config.tolerance}): it does not "
                "serve these weights. Was it started from a folder written by export_for_vllm?"
            )
        self._copy, self._mark, self.waiting = weights, mark, None
        return mark

    async def _check_mark(self, mark: str) -> None:
        found = await self._server.mark()
        if found == mark:
            return
        if found == UNMARKED or found.startswith(self._own):
            raise Away(f"vLLM at {self._server.url} was restarted and has lost the policy's weights")
        raise EngineError(
            f"another run gives its weights to vLLM at {self._server.url}: "
            "a policy's server serves one run; set rollouts.vllm.url"
        )

    def _keep(self, model: Any, version: int) -> Path | Packed:
        """A copy of `model`, complete when it gets its name: a server that comes back may have to be given it again."""
        if self._transfer:
            room, self._spare = self._spare, []
            return pack(model.state_dict(), room)
        if self._copy is None:
            self._remove_copies()  # of a run that was killed
        folder = self._sync_dir / f"{_COPIES}{version}"
        partial_folder = folder.with_suffix(".partial")
        try:
            _save_weights(model, partial_folder)
            shutil.rmtree(folder, ignore_errors=True)
            partial_folder.rename(folder)
        except (OSError, SafetensorError) as error:
            raise EngineError(
                f"cannot write the policy's weights to {self._sync_dir}: {error}; make room or set "
                "rollouts.vllm.sync_dir"
            ) from error
        return folder

    def _remove_copies(self) -> None:
        for folder in self._sync_dir.glob(f"{_COPIES}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _probe(model: Any, version: int) -> tuple[tuple[int, ...], torch.Tensor]:
    """A text, and the model's log-probs of it."""
    generator = torch.Generator().manual_seed(version)
    probe = torch.randint(0, model.config.vocab_size, (PROBE_TOKENS,), generator=generator).tolist()
    with torch.inference_mode():
        logps_1T, _ = suffix_logps(model, [probe[:1]], [probe[1:]])
    return tuple(probe), logps_1T[0].cpu()
