"""How the policy samples: by which engine, and what one of its own is told. Importable without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from preceptor_client.masking import MaskedUrl
from preceptor_trainer.section import Seconds, Section, Weight


class VllmConfig(Section):
    """The policy's own vLLM server (development endpoints on), which follows the weights of the run."""

    url: MaskedUrl = "http://127.0.0.1:8001"
    model: str = "policy"
    sync: Literal["files", "gloo", "nccl"] = "files"
    """How weights get there: through a folder, or over a process group straight into the server's memory, by gloo on
    CPUs and by NCCL between GPUs. The server has to be started for it: see docs/rollouts.md."""
    sync_dir: Path | None = None
    """files: a folder of this run alone that trainer and server both see; in memory (/dev/shm) is fastest. Default:
    `<out>/weights`."""
    sync_host: str = "127.0.0.1"
    """gloo: this machine's address as the server sees it."""
    timeout_s: Seconds = 300.0
    tolerance: Weight = 0.05
    """Nats by which the server's log-probs may differ from the trainer's before a sync counts as failed."""
    patience_s: Seconds = 600.0
    """How long a server that is away is waited for before the run ends."""


class RolloutsConfig(Section):
    """How the policy samples its continuations."""

    engine: Literal["torch", "vllm"] = "torch"
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    vllm: VllmConfig = VllmConfig()
