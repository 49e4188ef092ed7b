"""The hops' evaluation: what a policy answers to questions, and whether the world says so too.

In: a checkpoint, the run's configuration (its windows, and whether it thinks) and questions. Out: an `Answer` each,
sampled as in training. Guarantees: the oracle reads the question's words and goes by the world's facts; no training
imports it. May take seconds; no network.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PreparedWindow
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.evaluation.statistics import Estimate, mean
from preceptor_trainer.nano.hops.facts import PREFIX_WORDS, TEMPLATES, Hops, Question
from preceptor_trainer.nano.world import Attribute, World
from preceptor_trainer.rollouts.torch_engine import TorchEngine
from preceptor_trainer.sampling import Sampler
from preceptor_trainer.thoughts import thought_format

_ATTRIBUTE_OF: dict[str, Attribute] = {template.split()[1]: attribute for attribute, template in TEMPLATES.items()}


@dataclass(frozen=True)
class Answer:
    """`thought` counts its tokens; None if it is malformed, which makes the answer wrong."""

    right: bool
    thought: int | None


class HopsOracle:
    """Knows what is true in `world` at one hop and at two."""

    def __init__(self, world: World) -> None:
        self._people = world.people
        self._related = Hops(world).related

    def right(self, prefix: str, text: str) -> bool:
        """Whether `text` is the true answer to what `prefix` asks. Raises ValueError if that is no question."""
        words = prefix.split()
        if len(words) != PREFIX_WORDS or words[3] not in self._people or words[4] not in _ATTRIBUTE_OF:
            raise ValueError(f"{prefix!r} is no question of the hops")
        name, attribute = words[3], _ATTRIBUTE_OF[words[4]]
        for relation, of in self._related.items():
            if words[:3] == ["the", relation, "of"]:
                name = of[name]
        value = self._people[name].facts[attribute]
        return text.split() == TEMPLATES[attribute].replace("V", value).split()[2:]


def examination(questions: int, *, seed: int = 0) -> dict[str, list[Question]]:
    """So many questions of each kind: two hops about people held out, two hops about those told of, one hop."""
    hops, rng = Hops(World.generate()), random.Random(f"hops-examination-{seed}")
    return {
        "held_out": [hops.ask_two_hops(rng, hops.held_out) for _ in range(questions)],
        "told": [hops.ask_two_hops(rng, hops.told) for _ in range(questions)],
        "one_hop": [hops.ask_one_hop(rng) for _ in range(questions)],
    }


def answers(checkpoint: Path, config: TrainConfig, questions: Sequence[Question], *, seed: int = 0) -> list[Answer]:
    """One sample for each question."""
    codec = Codec(AutoTokenizer.from_pretrained(checkpoint))
    engine = TorchEngine(AutoModelForCausalLM.from_pretrained(checkpoint), eos_id=codec.eos_id)
    sampler = Sampler(config.model_copy(update={"seed": seed}), codec, engine, 0, thought_format(config, codec))
    windows = [
        PreparedWindow(
            Window(0, number, tuple(codec.encode(each.prefix)), tuple(codec.encode(each.suffix))), Position(), None
        )
        for number, each in enumerate(questions)
    ]
    cohorts = asyncio.run(sampler.sample(windows, version=0, k=1))
    oracle = HopsOracle(World.generate())
    written = [cohort.candidates[-1] for cohort in cohorts]
    return [
        Answer(not each.malformed and oracle.right(question.prefix, each.text), each.thought)
        for question, each in zip(questions, written, strict=True)
    ]


def measure(checkpoint: Path, config: TrainConfig, questions: int, *, seed: int = 0) -> dict[str, Estimate]:
    """Share of right answers of each kind; over all of them the share of malformed thoughts, and the others' length."""
    given = {
        kind: answers(checkpoint, config, asked, seed=seed) for kind, asked in examination(questions, seed=seed).items()
    }
    thoughts = [each.thought for kind in given.values() for each in kind]
    return {
        **{kind: mean([float(each.right) for each in of_kind]) for kind, of_kind in given.items()},
        "malformed": mean([float(each is None) for each in thoughts]),
        "thought": mean([float(each) for each in thoughts if each is not None] or [0.0]),
    }
