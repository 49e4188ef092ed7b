"""What came of the run in containers, against what went into it: the chaos benchmark's audit, on the volumes' files.

In: the run's folder, the folder of models and corpora, the queue's status and the account of a batch. Out: `Findings`,
empty if nothing was lost, nothing was done twice and nothing that failed became a reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chaos_parts.audit import BatchAccount, Findings, Run, audit_batch, audit_queue, audit_run
from benchmarks.chaos_parts.progress import json_lines
from benchmarks.chaos_parts.training import issued_windows
from compose.shell import ROOT
from preceptor_client.config import load_config
from preceptor_trainer.checkpoint import load_state
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.ledger import LEDGER_FILE
from preceptor_trainer.telemetry import METRICS_FILE

CONFIG = ROOT / "deploy" / "docker" / "nano.yaml"


def audit(out: Path, models: Path, steps: int, queue: Mapping[str, Any], batch: BatchAccount) -> Findings:
    """Everything that must not be."""
    corpus = models / "data" / "train.jsonl"
    config = load_config(TrainConfig, CONFIG, [f"--data.path={corpus}"], env_prefix=ENV_PREFIX)
    findings = audit_run(
        Run(
            steps=steps,
            cohorts_per_step=config.cohorts_per_step,
            staleness=config.staleness.limit,
            ledger=json_lines(out / LEDGER_FILE),
            metrics=[line["step"] for line in json_lines(out / METRICS_FILE)],
            issued=issued_windows(config.data, load_state(out / "final").position),
        )
    )
    findings += audit_batch(batch)
    findings += audit_queue({what: queue[what] for what in ("waiting", "in_flight", "dead")})
    return findings
