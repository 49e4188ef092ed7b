"""The hops' teacher: inserts thoughts and says whether two suffixes match. Trained once, kept on disk by content.

    <insert> the boss of alice is <a> good at golf . <answer>     the boss of alice is laura . <eos>
    <match> good at golf . <a> good at chess . <answer>           no

In: a cache folder. Out: a Hugging Face directory that vLLM serves, with its measured `accuracy.json`. Guarantees:
those of `preceptor_trainer.nano.teacher`. Labels come from how a text was made. May take a minute on two cores.
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
from torch import Tensor
from torch.nn.functional import cross_entropy

from preceptor_trainer.nano import model, optimizer, world
from preceptor_trainer.nano import tokenizer as nano_tokenizer
from preceptor_trainer.nano.hops import facts, tokenizer
from preceptor_trainer.nano.hops.facts import SUFFIX_WORDS, Hops, Question
from preceptor_trainer.nano.hops.tokenizer import hops_teacher_tokenizer
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.optimizer import NanoOptimizer
from preceptor_trainer.nano.teacher import Progress, trained_once
from preceptor_trainer.nano.world import World

_SOURCES = (facts, model, nano_tokenizer, optimizer, tokenizer, world)
_LAYERS = 4
_STEPS = 500
_INSERTIONS, _MATCHES = 12, 20
"""In a batch."""
_HELD_OUT = 500
_IGNORED = -100


@dataclass(frozen=True)
class HopsAccuracy:
    """Share of held-out labels met."""

    match: float
    thoughts: float
    """Thoughts that are right to the word."""


def ensure_hops_teacher(cache_dir: Path, *, progress: Progress = lambda done, total: None) -> Path:
    """The teacher's directory, trained now if `cache_dir` does not hold it yet."""
    sources = [inspect.getsource(module) for module in _SOURCES] + [Path(__file__).read_text(encoding="utf-8")]
    content = hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]
    return trained_once(cache_dir / f"hops-teacher-{content}", lambda target: _train(target, progress))


def read_hops_accuracy(teacher: Path) -> HopsAccuracy:
    """What was measured after the training."""
    return HopsAccuracy(**json.loads((teacher / "accuracy.json").read_text()))


Example = tuple[str, str]
"""Prompt and answer."""


def insert_prompt(prefix: str, suffix: str) -> str:
    """Which thought leads from the prefix to the suffix?"""
    return f"<insert> {prefix} <a> {suffix} <answer>"


def match_prompt(reference: str, candidate: str) -> str:
    """Does the candidate say what the reference says?"""
    return f"<match> {reference} <a> {candidate} <answer>"


class Examples:
    """Draws examples; each call advances the generator."""

    def __init__(self, hops: Hops, rng: random.Random) -> None:
        self._hops = hops
        self._rng = rng

    def insert(self) -> Example:
        """A question of either kind, about anybody, and its thought."""
        asked = self._question()
        return insert_prompt(asked.prefix, asked.suffix), f"{asked.thought} <eos>"

    def match(self) -> Example:
        """A suffix beside itself, beside another answer to the same question, or beside what is no answer to it."""
        reference = self._question().suffix
        kind = self._rng.random()
        if kind < 0.4:
            candidate = reference
        elif kind < 0.7:
            candidate = self._of_the_same(reference)
        else:
            candidate = self._disturbed(self._question().suffix if kind < 0.85 else reference)
        return match_prompt(reference, candidate), "yes" if candidate == reference else "no"

    def _question(self) -> Question:
        if self._rng.random() < 0.5:
            return self._hops.ask_one_hop(self._rng)
        return self._hops.ask_two_hops(self._rng, self._hops.names)

    def _of_the_same(self, suffix: str) -> str:
        """An answer that begins as `suffix` does; perhaps the same one."""
        while (other := self._question().suffix).split()[:2] != suffix.split()[:2]:
            pass
        return other

    def _disturbed(self, suffix: str) -> str:
        """One to three words of it exchanged for words of other questions, or some of them left out."""
        words = suffix.split()
        for _ in range(self._rng.randint(1, 3)):
            words[self._rng.randrange(len(words))] = self._rng.choice(self._question().text.split())
        return " ".join(words[: self._rng.choice((SUFFIX_WORDS, SUFFIX_WORDS, 2, 3))])


def _train(target: Path, progress: Progress) -> None:
    tokenizer = hops_teacher_tokenizer()
    network = nano_llama(tokenizer, layers=_LAYERS, seed=0)
    updates = NanoOptimizer(network, steps=_STEPS, matrix_lr=0.02, other_lr=0.01)
    examples = Examples(Hops(World.generate()), random.Random("hops-teacher"))
    for step in range(_STEPS):
        drawn = [examples.insert() for _ in range(_INSERTIONS)] + [examples.match() for _ in range(_MATCHES)]
        updates.step(_loss(network, tokenizer.encode, drawn))
        progress(step + 1, _STEPS)
    network.eval().save_pretrained(target)
    tokenizer.save_pretrained(target)
    accuracy = measure(network, tokenizer)
    (target / "accuracy.json").write_text(json.dumps(asdict(accuracy), indent=2) + "\n")


def _loss(network: Any, encode: Callable[[str], list[int]], drawn: Sequence[Example]) -> Tensor:
    """Mean cross-entropy of the answers' words; those of both kinds of question weigh the same."""
    ids_BT, targets_BT = _batch(encode, drawn)
    logits_BTV = network(ids_BT).logits[:, :-1]
    losses_BT = cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT[:, 1:].flatten(), ignore_index=_IGNORED, reduction="none"
    ).view(len(drawn), -1)
    loss: Tensor = (losses_BT.sum(1) / (targets_BT != _IGNORED).sum(1)).mean()
    return loss


@torch.inference_mode()
def measure(network: Any, tokenizer: Any) -> HopsAccuracy:
    """Greedy answers to held-out questions: right where each word of the answer is the likeliest one."""
    examples = Examples(Hops(World.generate()), random.Random("hops-held-out"))

    def accuracy(draw: Callable[[], Example]) -> float:
        ids_BT, targets_BT = _batch(tokenizer.encode, [draw() for _ in range(_HELD_OUT)])
        likeliest_BT = network(ids_BT).logits[:, :-1].argmax(-1)
        right_BT = (likeliest_BT == targets_BT[:, 1:]) | (targets_BT[:, 1:] == _IGNORED)
        return fmean(right_BT.all(1).float().tolist())

    return HopsAccuracy(match=accuracy(examples.match), thoughts=accuracy(examples.insert))


def _batch(encode: Callable[[str], list[int]], drawn: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """`ids_BT`, padded on the right, and `targets_BT`: the same where an answer stands."""
    prompts, answers = [encode(prompt) for prompt, _ in drawn], [encode(answer) for _, answer in drawn]
    width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    rows, targets = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        padding = width - len(prompt) - len(answer)
        rows.append([*prompt, *answer, *[0] * padding])
        targets.append([*[_IGNORED] * len(prompt), *answer, *[_IGNORED] * padding])
    return torch.tensor(rows), torch.tensor(targets)
