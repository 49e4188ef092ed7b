"""One micro-batch: what is trained on, and how many products it takes at least."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from preceptor_trainer.objectives.objective import TrainingSequence


@dataclass(frozen=True)
class Case:
    """`cohorts` prefixes with `k` suffixes each. K = 2 is DPO, more is GRPO."""

    prefix: int
    suffix: int
    k: int
    cohorts: int

    @property
    def objective(self) -> str:
        return "dpo" if self.k == 2 else "grpo"

    @property
    def name(self) -> str:
        return f"{self.prefix}+{self.suffix}, K={self.k}"

    def sequences(self, vocabulary: int) -> list[TrainingSequence]:
        """Random tokens; of pairs every chosen one first, as the objective has them."""
        dice = random.Random(0)

        def text(length: int) -> tuple[int, ...]:
            return tuple(dice.choices(range(vocabulary), k=length))

        prefixes = [text(self.prefix) for _ in range(self.cohorts)]
        order = prefixes * 2 if self.objective == "dpo" else [prefix for prefix in prefixes for _ in range(self.k)]
        return [TrainingSequence(prefix, text(self.suffix), advantage=dice.gauss(0, 1)) for prefix in order]


def flop_ratio(case: Case, config: Any) -> float:
    """Of rows over shared prefixes: multiplications that cannot be left out, of the layers' matrices for every token,
    of attention for every pair of tokens that see each other, and of the output weights for every place that predicts
    a suffix token. The way back takes twice as many of each.
    """
    length, suffixes = case.prefix + case.suffix, case.k * case.suffix
    rows = _products(config, case.k * length, case.k * _causal(length), suffixes)
    seen = _causal(case.prefix) + suffixes * case.prefix + case.k * _causal(case.suffix)
    return rows / _products(config, case.prefix + suffixes, seen, 1 + suffixes - case.k)


def _products(config: Any, tokens: int, pairs: int, predicting: int) -> int:
    width, heads, head = config.hidden_size, config.num_attention_heads, config.head_dim
    projections = width * head * 2 * (heads + config.num_key_value_heads)
    layer = tokens * (projections + 3 * width * config.intermediate_size) + pairs * 2 * heads * head
    return int(config.num_hidden_layers * layer + predicting * width * config.vocab_size)


def _causal(tokens: int) -> int:
    return tokens * (tokens + 1) // 2
