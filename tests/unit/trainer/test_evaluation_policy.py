"""Likelihood, entropy and variety, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from preceptor_trainer.codec import Codec
from preceptor_trainer.data.windows import Window
from preceptor_trainer.evaluation.generation import Generation, generate
from preceptor_trainer.evaluation.policy import distinct, entropy, suffix_nll
from preceptor_trainer.evaluation.statistics import over_seeds
from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.tokenizer import policy_tokenizer


@pytest.fixture(scope="module")
def nano() -> tuple[Any, Codec]:
    tokenizer = policy_tokenizer()
    return nano_llama(tokenizer, layers=1, seed=0).eval(), Codec(tokenizer)


def windows(codec: Codec) -> list[Window]:
    texts = [("laura has a house in", "cairo ."), ("laura owns", "a young dog .")]
    return [
        Window(0, i, tuple(codec.encode(prefix)), tuple(codec.encode(suffix)))
        for i, (prefix, suffix) in enumerate(texts)
    ]


def test_a_suffix_costs_what_each_of_its_tokens_costs_alone(nano: tuple[Any, Codec]) -> None:
    model, codec = nano
    found = suffix_nll(model, codec, windows(codec))
    for window, nll in zip(windows(codec), found, strict=True):
        logps_1T, _ = suffix_logps(model, [window.prefix], [window.suffix])
        assert nll == pytest.approx(-logps_1T.mean().item(), abs=1e-5)


def test_a_control_token_is_read_before_the_prefix(nano: tuple[Any, Codec]) -> None:
    model, codec = nano
    behind = [Window(w.epoch, w.document, (codec.control("laura"), *w.prefix), w.suffix) for w in windows(codec)]
    controlled = suffix_nll(model, codec, windows(codec), "laura")
    assert controlled == pytest.approx(suffix_nll(model, codec, behind))
    assert controlled != pytest.approx(suffix_nll(model, codec, windows(codec)))
    written, same = generate(model, codec, windows(codec), control="laura"), generate(model, codec, behind)
    assert [each.text for each in written] == [each.text for each in same]
    assert [each.prefix for each in written] == ["laura has a house in", "laura owns"], "the judge does not see it"
    assert entropy(model, codec, windows(codec), written, "laura") == pytest.approx(
        entropy(model, codec, behind, written)
    )


def test_a_policy_that_knows_nothing_has_the_entropy_of_its_vocabulary(nano: tuple[Any, Codec]) -> None:
    model, codec = nano
    given = windows(codec)
    generations = [Generation("", "", "cairo ."), Generation("", "", "")]
    sure = entropy(model, codec, given, generations)
    assert len(sure) == 1, "what wrote nothing has none"
    with torch.no_grad():
        kept = model.lm_head.weight.clone()
        model.lm_head.weight.zero_()
        flat = entropy(model, codec, given, generations)
        model.lm_head.weight.copy_(kept)
    assert flat == pytest.approx([math.log(len(kept))])
    assert sure[0] < flat[0]


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [(["a b a b"], 1, 2 / 4), (["a b a b"], 2, 2 / 3), (["a b", "a b"], 2, 1 / 2), (["a"], 2, 0.0), ([], 1, 0.0)],
)
def test_distinct_is_the_share_of_different_ones(texts: list[str], n: int, expected: float) -> None:
    assert distinct(texts, n) == expected


def test_an_interval_over_seeds_is_students() -> None:
    estimate = over_seeds([1.0, 2.0, 3.0])
    assert (estimate.value, estimate.high) == pytest.approx((2.0, 2.0 + 4.303 / 3**0.5))
    assert over_seeds([1.0, 3.0]).high == pytest.approx(2.0 + 12.706)
    many = over_seeds([0.0, 1.0] * 20)
    assert many.high - many.value == pytest.approx(2.228 * 0.50637 / 40**0.5, rel=1e-3)
    with pytest.raises(ValueError, match="two"):
        over_seeds([1.0])
