"""Sampling by the policy's own vLLM server, which is given new weights in place.

In: token ids, over HTTP (`/v1/completions`). Out: `Rollouts`. `load` saves the weights where the server can read
them, has it reload them and drop its prefix cache, and then asks for log-probabilities of a probe text and compares
them with the model's own: a server that serves anything but the weights of `version` is an error, never a silent
bias. May wait for the server; sampling and loading never overlap, so a sample runs on one version.

The server must be started from a folder written by `export_for_vllm`: on a CPU, vLLM 0.32 keeps a packed copy of an
output matrix that is tied to the embeddings, and a reload leaves that copy as it was. The export unties them.
The reload endpoints are vLLM's development mode (`VLLM_SERVER_DEV_MODE=1`): keep that server on loopback. They change
between releases of vLLM, and this file is the only one that knows them.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import save_file

from preceptor_trainer.config import VllmConfig
from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.rollouts.engine import EngineError, Rollout, Rollouts

PROBE_TOKENS = 16


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
    # Cloned one by one: safetensors refuses tensors that share memory.
    tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


class VllmEngine:
    """`version` is unknown (-1) until the first `load`."""

    def __init__(self, config: VllmConfig, sync_dir: Path, *, eos_id: int | None = None) -> None:
        self._model_name = config.model
        self._tolerance = config.tolerance
        self._sync_dir = sync_dir.resolve()
        self._stop_ids = [] if eos_id is None else [eos_id]
        self._http = httpx.AsyncClient(base_url=config.url, timeout=config.timeout_s)
        self._turn = asyncio.Lock()
        self.version = -1

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
            if self.version < 0:
                raise EngineError("the vLLM policy engine has no weights yet: load them before sampling")
            # Greedy rollouts of a prefix are all the same, and vLLM refuses to sample them more than once.
            n = k if temperature > 0 else 1
            answer = await self._post(
                "/v1/completions",
                {
                    "model": self._model_name,
                    "prompt": [list(prefix) for prefix in prefixes],
                    "n": n,
                    "max_tokens": n_tokens,
                    "temperature": temperature,
                    "top_p": top_p,
                    "seed": seed,
                    "logprobs": 0,
                    # Only what this run calls the end of a text ends one, whatever the model's own files say.
                    "ignore_eos": True,
                    "stop_token_ids": self._stop_ids,
                    "return_token_ids": True,
                },
            )
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if len(choices) != len(prefixes) * n:
                raise EngineError(f"vLLM answered {len(choices)} rollouts instead of {len(prefixes) * n}")
            rollouts = [
                Rollout(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"])) for choice in choices
            ]
            grouped = (tuple(rollouts[i : i + n]) for i in range(0, len(rollouts), n))
            return Rollouts(self.version, tuple(row * (k // n) for row in grouped))

    async def load(self, model: Any, version: int) -> None:
        async with self._turn:
            weights = self._sync_dir / f"version-{version}"
            await asyncio.to_thread(_save_weights, model, weights)
            await self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}})
            await self._post("/reset_prefix_cache", None)
            await self._verify(model, version)
            self.version = version
            await asyncio.to_thread(shutil.rmtree, weights)

    async def close(self) -> None:
        await self._http.aclose()

    async def _verify(self, model: Any, version: int) -> None:
        probe = torch.randint(
            0, model.config.vocab_size, (PROBE_TOKENS,), generator=torch.Generator().manual_seed(version)
        )
        ids = probe.tolist()
        answer = await self._post(
            "/v1/completions",
            {"model": self._model_name, "prompt": [ids], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0},
        )
        served = [
            step[str(token)]["logprob"]
            for token, step in zip(ids[1:], answer["choices"][0]["prompt_logprobs"][1:], strict=True)
        ]
        with torch.inference_mode():
            logps_1T, _ = suffix_logps(model, [ids[:1]], [ids[1:]])
        difference = (logps_1T[0].cpu() - torch.tensor(served)).abs().mean().item()
        if not difference <= self._tolerance:
            raise EngineError(
                f"after loading version {version}, vLLM's log-probs differ from the policy's by {difference:.4f} nats "
                f"a token (rollouts.vllm.tolerance is {self._tolerance}): it does not serve these weights. Was it "
                "started from a folder written by export_for_vllm?"
            )

    async def _post(self, path: str, body: dict[str, Any] | None) -> Any:
        try:
            response = await self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise EngineError(f"no answer from vLLM at {self._http.base_url}{path}: {error!r}") from error
        if response.status_code == httpx.codes.NOT_FOUND and not path.startswith("/v1"):
            raise EngineError(f"vLLM has no {path}: start the policy's server with VLLM_SERVER_DEV_MODE=1")
        if response.is_error:
            raise EngineError(f"vLLM refused {path} with status {response.status_code}: {response.text[:500]}")
        return response.json() if response.content else None
