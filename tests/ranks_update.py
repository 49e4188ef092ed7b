"""Updates on all ranks of a torchrun: `torchrun --nproc-per-node 2 ranks_update.py FOLDER`.

Each case of `CASES` trains a tiny policy on made-up cohorts: `before` updates, then a checkpoint `<case>-half`, then
`after` more, and one more checkpoint, `<case>`; where FOLDER has a checkpoint `<case>-start` it begins with that and
does the rest. `<case>.json` has the losses. Imported, the same on one rank.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from preceptor_client.contract import Origin
from preceptor_trainer.checkpoint import TrainerState, load_moments, save_checkpoint
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ComputeConfig, ObjectiveConfig, OptimizerConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.learner import Learner, UpdateStats
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.ranks import ALONE, Ranks
from tiny_policy import tiny_llama, word_tokenizer

HALF, ALL = 3, 6


@dataclass(frozen=True)
class Case:
    """A way to train. Five cohorts are not the same number for each of two ranks."""

    objective: str
    compute: ComputeConfig
    cohorts: int = 5


CASES = {
    "dpo": Case("dpo", ComputeConfig(micro_cohorts=2)),
    "grpo": Case("grpo", ComputeConfig(), cohorts=4),
    "alone": Case("rf_nll", ComputeConfig(), cohorts=1),
    "resumed": Case("dpo", ComputeConfig(micro_cohorts=1)),
    "checkpointing": Case("dpo", ComputeConfig(activation_checkpointing=True)),
    "bfloat16": Case("dpo", ComputeConfig(precision="bfloat16")),
}


def cohort(step: int, number: int) -> PolicyCohort:
    """Of its own length, with three candidates."""
    words = torch.randint(2, 60, (30,), generator=torch.Generator().manual_seed(100 * step + number)).tolist()
    prefix, suffixes = tuple(words[: 3 + number]), (words[10:16], words[16:20], words[20:25])
    candidates = tuple(
        TokenCandidate(f"c{index}", Origin.ROLLOUT, tuple(ids), "", tuple(-4.0 for _ in ids))
        for index, ids in enumerate(suffixes)
    )
    judged = Judged({"c0": 1.0, "c1": 0.25, "c2": 0.0}, {}, candidates[0], candidates[2])
    return PolicyCohort(f"{step}-{number}", Window(step, number, prefix, candidates[0].ids), step, candidates, judged)


def learner(case: Case, ranks: Ranks = ALONE) -> Learner:
    """At its start."""
    optimizer = OptimizerConfig(lr=3e-3, weight_decay=0.1, warmup_steps=2, clip=0.5)
    objective = make_objective(ObjectiveConfig.model_validate({"name": case.objective}), 6)
    return Learner(tiny_llama(scale=0.1), objective, optimizer, case.compute, ALL, ranks)


def train(case: Case, trainer: Learner, until: int) -> list[UpdateStats]:
    """Up to `until` updates."""
    return [
        trainer.update([cohort(step, number) for number in range(case.cohorts)])
        for step in range(trainer.version, until)
    ]


def keep(folder: Path, trainer: Learner) -> None:
    """A checkpoint."""
    state = TrainerState("r", trainer.version, {}, 0, Position(), [], {}, {})
    save_checkpoint(folder, trainer.model, word_tokenizer(), state, trainer.moments())


def restore(folder: Path, trainer: Learner, version: int) -> None:
    """What `keep` kept."""
    trainer.restore(AutoModelForCausalLM.from_pretrained(folder).state_dict(), load_moments(folder), version)


def main(folder: Path) -> None:
    """All cases, one after the other."""
    torch.set_num_threads(1)
    ranks = Ranks.join()
    for name, case in CASES.items():
        trainer = learner(case, ranks)
        if ranks.rank:
            trainer.follow()
            continue
        losses: list[Any] = []
        if (start := folder / f"{name}-start").exists():
            restore(start, trainer, HALF)
        else:
            losses += figures(train(case, trainer, HALF))
            keep(folder / f"{name}-half", trainer)
        losses += figures(train(case, trainer, ALL))
        keep(folder / name, trainer)
        (folder / f"{name}.json").write_text(json.dumps(losses))
        ranks.tell("end")
    ranks.leave()


def figures(updates: Sequence[UpdateStats]) -> list[dict[str, float]]:
    """What is logged of them."""
    return [{"loss": each.loss, "grad_norm": each.grad_norm, "tokens": each.tokens, **each.figures} for each in updates]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
