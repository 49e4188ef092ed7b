"""The policy that is updated and sampled from, and cohorts of it that were judged."""

from __future__ import annotations

import random
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.data.windows import Window

VOCAB = 512


def policy(*, attention: str = "sdpa") -> Any:
    """A Llama of 0.9 M parameters, float32."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def cohorts(count: int, k: int, prefix: int, suffix: int, seed: int = 0) -> list[PolicyCohort]:
    """With `k` rollouts each, all of different scores."""
    dice = random.Random(seed)
    return [_cohort(number, k, prefix, suffix, dice) for number in range(count)]


def window(number: int, prefix: int, suffix: int, dice: random.Random) -> Window:
    """Of random tokens."""
    ids = _tokens(prefix + suffix, dice)
    return Window(epoch=0, document=number, prefix=ids[:prefix], suffix=ids[prefix:])


def _cohort(number: int, k: int, prefix: int, suffix: int, dice: random.Random) -> PolicyCohort:
    candidates = tuple(
        TokenCandidate(f"rollout-{place}", Origin.ROLLOUT, _tokens(suffix, dice), f"text {place}", (-7.0,) * suffix)
        for place in range(k)
    )
    scores = {candidate.id: place / k for place, candidate in enumerate(candidates)}
    cut = window(number, prefix, suffix, dice)
    judged = Judged(scores, {"quality": scores}, chosen=candidates[-1], rejected=candidates[0])
    return PolicyCohort(cut.id, cut, 0, candidates, judged)


def _tokens(length: int, dice: random.Random) -> tuple[int, ...]:
    return tuple(dice.choices(range(VOCAB), k=length))
