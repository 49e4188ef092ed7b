"""The nano teacher: trained once from labelled examples, measured on held-out ones, kept on disk by content.

In: a cache folder; a policy, if the teacher shall begin as that one. Out: a Hugging Face directory that vLLM serves,
with its measured `accuracy.json` beside the weights. Guarantees: the directory's name is a hash of everything that
decides the weights (the sources of this package, the recipe, the policy), so a change trains anew and an unchanged one
never does; it appears whole or not at all; two processes that want it train it once. May take three minutes on two
cores. Raises `TrainError` for a policy that is not of the nano world.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from preceptor_client.stack import sole_use
from preceptor_trainer.nano import inheritance, labelled, model, optimizer, prompts, teaching, text, tokenizer, world
from preceptor_trainer.nano.inheritance import fingerprint, inherit
from preceptor_trainer.nano.labelled import Example, Examples
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.optimizer import NanoOptimizer
from preceptor_trainer.nano.teaching import LAYERS, Heads, make_batch, teaching_loss
from preceptor_trainer.nano.tokenizer import teacher_tokenizer
from preceptor_trainer.nano.world import World
from preceptor_trainer.whole import made_once

_SOURCES = (labelled, model, optimizer, prompts, teaching, text, tokenizer, world)
_HELD_OUT = 1000
"""Examples per axis that accuracy is measured on; their generator shares nothing with the training's."""


@dataclass(frozen=True)
class Recipe:
    """Everything about the training that is a number. Counts are examples per step."""

    seed: int = 0
    steps: int = 1400
    quality: int = 10
    factuality: int = 3
    safety: int = 1
    rewrite: int = 2
    matrix_lr: float = 0.02
    other_lr: float = 0.01


@dataclass(frozen=True)
class TeacherAccuracy:
    """Share of held-out labels met, by axis; all three verdicts of an axis count."""

    quality: float
    safety: float
    factuality: float
    copies: float
    """Share of flawless suffixes that the rewriter returns word for word."""
    position_consistency: float
    """Share of quality pairs whose verdict turns with the order."""


Progress = Callable[[int, int], None]
"""Told (steps done, steps in all)."""


def ensure_teacher(
    cache_dir: Path,
    *,
    recipe: Recipe = Recipe(),
    policy: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """The teacher's directory, trained now if `cache_dir` does not hold it yet. It begins as `policy`, or at random."""
    target = cache_dir / f"nano-teacher-{content_hash(recipe, policy)}"
    return trained_once(target, lambda partial: _train(partial, recipe, policy, progress))


def trained_once(target: Path, train: Callable[[Path], None]) -> Path:
    """`target`, now trained into a folder beside it unless it is there: whole or not at all, and by one process."""
    if target.is_dir():
        return target
    with sole_use(target.parent, wait=True):
        return made_once(target, train)


def content_hash(recipe: Recipe, policy: Path | None = None) -> str:
    """Of the recipe, the policy, and every source that decides the weights."""
    parts = [json.dumps(asdict(recipe), sort_keys=True), inspect.getsource(_train)]
    parts += [inspect.getsource(module) for module in _SOURCES]
    if policy:
        parts += [inspect.getsource(inheritance), fingerprint(policy)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def read_accuracy(teacher: Path) -> TeacherAccuracy:
    """What was measured after the training."""
    return TeacherAccuracy(**json.loads((teacher / "accuracy.json").read_text()))


def _train(target: Path, recipe: Recipe, policy: Path | None, progress: Progress) -> None:
    tokenizer = teacher_tokenizer()
    words: dict[str, int] = tokenizer.get_vocab()
    network = nano_llama(tokenizer, layers=LAYERS, seed=recipe.seed)
    if policy:
        inherit(network, words, policy)
    heads = Heads()
    updates = NanoOptimizer(network, [heads], steps=recipe.steps, matrix_lr=recipe.matrix_lr, other_lr=recipe.other_lr)
    examples = Examples(World.generate(), random.Random(f"teacher-{recipe.seed}"))
    for step in range(recipe.steps):
        drawn = [examples.quality() for _ in range(recipe.quality)]
        drawn += [examples.factuality() for _ in range(recipe.factuality)]
        drawn += [examples.safety() for _ in range(recipe.safety)]
        drawn += [examples.rewrite() for _ in range(recipe.rewrite)]
        updates.step(teaching_loss(network, heads, make_batch(drawn, words)))
        progress(step + 1, recipe.steps)
    accuracy = measure(network.eval(), words)
    network.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "accuracy.json").write_text(json.dumps(asdict(accuracy), indent=2) + "\n")


def measure(network: Any, words: dict[str, int]) -> TeacherAccuracy:
    """Greedy answers to held-out questions against their labels."""
    examples = Examples(World.generate(), random.Random("held-out"))
    pairs = [examples.quality() for _ in range(_HELD_OUT)]
    turned = {"A": "B", "B": "A", "tie": "tie"}
    verdicts = _verdicts(network, words, [pair.prompt for pair in pairs])
    of_swapped = _verdicts(network, words, [_swapped(pair.prompt) for pair in pairs])
    rewrites = [example for example in (examples.rewrite() for _ in range(_HELD_OUT)) if _is_copy(example)]

    def accuracy(asked: Sequence[Example]) -> float:
        given = _verdicts(network, words, [example.prompt for example in asked])
        return fmean(answer == example.answer for answer, example in zip(given, asked, strict=True))

    return TeacherAccuracy(
        quality=fmean(verdict == pair.answer for verdict, pair in zip(verdicts, pairs, strict=True)),
        safety=accuracy([examples.safety() for _ in range(_HELD_OUT)]),
        factuality=accuracy([examples.factuality() for _ in range(_HELD_OUT)]),
        copies=_copies(network, words, rewrites),
        position_consistency=fmean(turned.get(a) == b for a, b in zip(verdicts, of_swapped, strict=True)),
    )


@torch.inference_mode()
def _verdicts(network: Any, words: dict[str, int], asked: Sequence[str]) -> list[str]:
    """The likeliest next word of each prompt."""
    by_id = {index: word for word, index in words.items()}
    ids = [[words[word] for word in prompt.split()] for prompt in asked]
    width = max(map(len, ids))
    padded = torch.tensor([row + [words["<pad>"]] * (width - len(row)) for row in ids])
    last = torch.tensor([len(row) - 1 for row in ids])
    hidden = network.model(padded).last_hidden_state[torch.arange(len(ids)), last]
    return [by_id[index] for index in network.lm_head(hidden).argmax(-1).tolist()]


@torch.inference_mode()
def _copies(network: Any, words: dict[str, int], rewrites: Sequence[Example]) -> float:
    """Share of greedy rewrites that are their answer: every next word of it is the likeliest one."""
    batch = make_batch(rewrites, words)
    predicted = network(batch.ids_BT).logits[:, :-1].argmax(-1)
    right = (predicted == batch.ids_BT[:, 1:]) | ~batch.answer_BT[:, 1:]
    return float(right.all(dim=1).float().mean())


def _swapped(prompt: str) -> str:
    head, _, rest = prompt.partition(" <a> ")
    a, _, rest = rest.partition(" <b> ")
    b, _, tail = rest.partition(" <answer>")
    return f"{head} <a> {b} <b> {a} <answer>{tail}"


def _is_copy(example: Example) -> bool:
    suffix = example.prompt.partition(" <a> ")[2].removesuffix(" <answer>")
    return example.answer == f"{suffix} <eos>"
