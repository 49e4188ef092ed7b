"""How the nano teacher is post-trained on labelled examples: one batch, one loss. Pure but for the random generator.

A verdict is one token at the end of some fifty: too thin a signal for a few minutes. Since every word's part in the
verdict is known by construction, heads that exist in training only are taught it as well:

    layer 2   per word: true or false statement, unsafe, defect, which part of the prompt it stands in
    layer 3   per word: what has occurred so far in each candidate
    layer 4   the answer; next words that are true or plain

B examples, T tokens, W the words of the batch that a term looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from preceptor_trainer.nano.labelled import DEFECT, FALSE, FLAGS, PARTS, TRUE, UNKNOWN, UNSAFE, Example
from preceptor_trainer.nano.model import WIDTH

LAYERS = 4
_WORD_LAYER = 2
_SUMMARY_LAYER = 3
_ANY_OF = FLAGS * (PARTS - 1)
_DEFECT_WEIGHT = torch.tensor(4.0)
"""Defects are rare among words."""


@dataclass(frozen=True)
class Batch:
    """`flags_BT` is UNKNOWN after the prompt; `answer_BT` marks the answer's tokens; `part_BT` is 0 in the prefix."""

    ids_BT: Tensor
    flags_BT: Tensor
    answer_BT: Tensor
    part_BT: Tensor


class Heads(nn.Module):
    """The training-only heads."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Linear(WIDTH, 3)
        self.part = nn.Linear(WIDTH, PARTS)
        self.summary = nn.Linear(WIDTH, _ANY_OF + PARTS - 1)


def make_batch(examples: Sequence[Example], vocabulary: dict[str, int]) -> Batch:
    """Examples as tensors, padded on the right."""
    ids, flags, answers, parts = [], [], [], []
    width = max(len(example.flags) + len(example.answer.split()) for example in examples)
    opens = {"<a>": 1, "<safety>": 1, "<b>": 2}
    for example in examples:
        words, answer = example.prompt.split(), example.answer.split()
        padding = width - len(words) - len(answer)
        ids.append([vocabulary[word] for word in words + answer] + [vocabulary["<pad>"]] * padding)
        flags.append(example.flags + [UNKNOWN] * (width - len(words)))
        answers.append([False] * len(words) + [True] * len(answer) + [False] * padding)
        part, of_word = 0, []
        for word in words:
            part = opens.get(word, part)
            of_word.append(part)
        parts.append(of_word + [0] * (width - len(words)))
    return Batch(torch.tensor(ids), torch.tensor(flags), torch.tensor(answers), torch.tensor(parts))


def teaching_loss(model: Any, heads: Heads, batch: Batch) -> Tensor:
    """All terms of one batch, weighted."""
    output = model.model(batch.ids_BT, output_hidden_states=True)
    hidden_BTD = output.last_hidden_state
    known_BT = batch.flags_BT != UNKNOWN
    flags_BT = torch.where(known_BT, batch.flags_BT, 0)
    merged_BT = sum(flags_BT >> (FLAGS * part) for part in range(PARTS)) & (2**FLAGS - 1)

    rewriting_B1 = batch.answer_BT.sum(1, keepdim=True) > 1
    answers_BT = batch.answer_BT & ~rewriting_B1
    plain_BT = known_BT & (merged_BT == 0)
    true_BT = known_BT & ((merged_BT & (TRUE | FALSE)) == TRUE)
    loss = _next_word_loss(model, hidden_BTD, batch.ids_BT, answers_BT)
    loss = loss + _next_word_loss(model, hidden_BTD, batch.ids_BT, batch.answer_BT & rewriting_B1)
    loss = loss + _next_word_loss(model, hidden_BTD, batch.ids_BT, true_BT)
    loss = loss + 0.3 * _next_word_loss(model, hidden_BTD, batch.ids_BT, plain_BT)

    word_BTD = output.hidden_states[_WORD_LAYER]
    stated_BT = known_BT & ((merged_BT & (TRUE | FALSE)) > 0)
    word_BT3 = heads.word(word_BTD)
    false_W, unsafe_W, defect_W = ((merged_BT & flag > 0).float() for flag in (FALSE, UNSAFE, DEFECT))
    loss = loss + 3 * binary_cross_entropy_with_logits(word_BT3[stated_BT][:, 0], false_W[stated_BT])
    loss = loss + 2 * binary_cross_entropy_with_logits(word_BT3[known_BT][:, 1], unsafe_W[known_BT])
    loss = loss + 4 * binary_cross_entropy_with_logits(
        word_BT3[known_BT][:, 2], defect_W[known_BT], pos_weight=_DEFECT_WEIGHT
    )
    loss = loss + 0.3 * cross_entropy(heads.part(word_BTD)[known_BT], batch.part_BT[known_BT])

    seen_W = known_BT & (batch.part_BT > 0)
    summary_BTS = heads.summary(output.hidden_states[_SUMMARY_LAYER])
    return loss + 3 * binary_cross_entropy_with_logits(summary_BTS[seen_W], _so_far(flags_BT)[seen_W])


def _next_word_loss(model: Any, hidden_BTD: Tensor, ids_BT: Tensor, of_BT: Tensor) -> Tensor:
    """Mean cross-entropy of the words that `of_BT` marks, each predicted from the position before it."""
    wanted_BT = of_BT[:, 1:]
    return cross_entropy(model.lm_head(hidden_BTD[:, :-1][wanted_BT]), ids_BT[:, 1:][wanted_BT])


def _so_far(flags_BT: Tensor) -> Tensor:
    """Per word and candidate: has each flag occurred up to here, and have there been two defects?"""
    bits = 2 ** torch.arange(FLAGS, FLAGS * PARTS)
    counts_BTF = ((flags_BT.unsqueeze(-1) & bits) > 0).long().cumsum(1)
    defects_BT2 = counts_BTF[..., DEFECT.bit_length() - 1 :: FLAGS]
    return torch.cat([counts_BTF > 0, defects_BT2 > 1], dim=-1).float()
