"""The sides: loss and gradients of one micro-batch, in rows, with shared prefixes, or as TRL computes them.

Each side has copies of the same policy and, for DPO, of the same reference. TRL's are its own trainers, built over a
data set of one line and never run; the loss is what their `compute_loss` gives for the batch, in evaluation mode so
that it is not divided by accumulation steps (there is no dropout).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from benchmarks.shared_prefix_parts.case import Case
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.objectives.objective import LossInputs, TrainingSequence
from preceptor_trainer.scoring import make_scorer

BETA = 0.1


class Side:
    """`step()` leaves gradients in `policy`, and the loss in `loss`."""

    def __init__(self, policy: Any, compute: Callable[[], Tensor]) -> None:
        self.policy = policy
        self.loss = math.nan
        self._compute_loss = compute

    def step(self) -> None:
        """Forward and backward, to the end."""
        self.policy.zero_grad(set_to_none=True)
        loss = self._compute_loss()
        loss.backward()  # type: ignore[no-untyped-call]
        self.loss = loss.item()
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize()

    def gradient(self) -> Tensor:
        """Of the last step, as one vector."""
        return torch.cat([weights.grad.flatten().float() for weights in self.policy.parameters()])


class Ours(Side):
    """The update's own computation. `shared_prefix` is as in the configuration."""

    def __init__(self, case: Case, policy: Any, reference: Any, shared_prefix: Literal["auto", "off"]) -> None:
        self._scorer = make_scorer(copy.deepcopy(policy), shared_prefix)
        if shared_prefix == "auto" and self._scorer.way != "shared":
            raise SystemExit(f"prefixes of this model are not shared: {self._scorer.fallback}")
        self._frozen = make_scorer(copy.deepcopy(reference).requires_grad_(False), shared_prefix)
        settings = {"name": case.objective, "beta": BETA, "correction": "none"}
        self._objective = make_objective(ObjectiveConfig.model_validate(settings), case.suffix)
        self._sequences = case.sequences(policy.config.vocab_size)
        self._pairs = [s.prefix for s in self._sequences], [s.suffix for s in self._sequences]
        super().__init__(self._scorer.model, self._compute)

    def logps(self) -> Tensor:
        """Of every suffix token under the policy."""
        with torch.no_grad():
            logps: Tensor = self._scorer(*self._pairs)[0]
        return logps

    def _compute(self) -> Tensor:
        reference = None
        if self._objective.needs_reference:
            with torch.no_grad():
                reference, _ = self._frozen(*self._pairs)
        policy, mask = self._scorer(*self._pairs)
        return self._objective.loss(LossInputs(self._sequences, policy, reference, mask))[0]


def trl_side(case: Case, policy: Any, reference: Any, folder: str) -> Side:
    """TRL's. `folder` is where its trainer would write."""
    policy, reference = copy.deepcopy(policy), copy.deepcopy(reference)
    sequences = case.sequences(policy.config.vocab_size)
    settings: dict[str, Any] = {
        "output_dir": folder,
        "use_cpu": policy.device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if case.objective == "dpo":
        return _dpo(sequences, policy, reference, settings)
    return _grpo(case, sequences, policy, settings)


def _dpo(sequences: list[TrainingSequence], policy: Any, reference: Any, settings: dict[str, Any]) -> Side:
    trainer = DPOTrainer(
        policy,
        reference,
        DPOConfig(**settings, beta=BETA, max_length=None),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=_tokenizer(),
    )
    chosen, rejected = sequences[: len(sequences) // 2], sequences[len(sequences) // 2 :]
    examples = [
        {"prompt_ids": list(a.prefix), "chosen_ids": list(a.suffix), "rejected_ids": list(b.suffix)}
        for a, b in zip(chosen, rejected, strict=True)
    ]
    batch = {name: tensor.to(policy.device) for name, tensor in trainer.data_collator(examples).items()}
    policy.eval()
    return Side(policy, lambda: trainer.compute_loss(policy, batch))


def _grpo(case: Case, sequences: list[TrainingSequence], policy: Any, settings: dict[str, Any]) -> Side:
    rows = len(sequences)
    trainer = GRPOTrainer(
        policy,
        lambda completions, **_: [0.0] * len(completions),
        GRPOConfig(**settings, beta=0.0, loss_type="grpo", per_device_train_batch_size=rows, num_generations=case.k),
        train_dataset=Dataset.from_list([{"prompt": "a"}]),
        processing_class=_tokenizer(),
    )
    ids = {
        "prompt_ids": torch.tensor([sequence.prefix for sequence in sequences]),
        "completion_ids": torch.tensor([sequence.suffix for sequence in sequences]),
    }
    batch = {
        **ids,
        "prompt_mask": torch.ones_like(ids["prompt_ids"]),
        "completion_mask": torch.ones_like(ids["completion_ids"]),
        "advantages": torch.tensor([sequence.advantage for sequence in sequences]),
        "num_items_in_batch": torch.tensor(rows * case.suffix),
    }
    batch = {name: tensor.to(policy.device) for name, tensor in batch.items()}
    policy.eval()
    return Side(policy, lambda: trainer.compute_loss(policy, batch))


def _tokenizer() -> Any:
    words = {word: number for number, word in enumerate(["<pad>", "<eos>", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def relative(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((got - expected).norm() / expected.norm())


def furthest(got: Tensor, expected: Tensor) -> float:
    """The largest relative difference of two figures."""
    return float(((got - expected).abs() / expected.abs().clamp(min=math.ulp(1.0))).max())
