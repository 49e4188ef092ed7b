"""What is done with the verdicts: one objective a file, and `selection` before them all."""

from __future__ import annotations

from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.objectives.dpo import Dpo
from preceptor_trainer.objectives.grpo import Grpo
from preceptor_trainer.objectives.nll import Nll
from preceptor_trainer.objectives.objective import Objective
from preceptor_trainer.objectives.rf_nll import RfNll


def make_objective(config: ObjectiveConfig, suffix_tokens: int) -> Objective:
    """The objective that `config` names, for suffixes of at most `suffix_tokens`, thoughts among them."""
    match config.name:
        case "dpo":
            return Dpo(config)
        case "grpo":
            return Grpo(config, suffix_tokens)
        case "rf_nll":
            return RfNll()
        case "nll":
            return Nll(config)
