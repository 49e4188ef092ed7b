from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from preceptor_client.contract import Origin
from preceptor_trainer.cohorts import Judged, PolicyCohort, TokenCandidate
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.logprobs import suffix_logps
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.objectives.objective import LossInputs
from preceptor_trainer.scoring import SuffixScorer, make_scorer
from preceptor_trainer.scoring.attention import Tree
from preceptor_trainer.scoring.flex import block_mask
from preceptor_trainer.scoring.layout import Layout
from tiny_policy import tiny_gpt2

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3, tied": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True)),
}
P, Q = [3, 1, 4, 1, 5], [9, 2]
BATCHES: dict[str, tuple[list[list[int]], list[list[int]]]] = {
    "a suffix each": ([P, Q], [[7, 8, 9], [10, 11, 12]]),
    "two each, chosen before rejected": ([P, Q, P, Q], [[7, 8], [9, 10], [11, 12], [13, 14]]),
    "unequal lengths": ([P, Q, P, [6], P], [[7, 8, 9, 10], [11], [12], [13, 14], [15, 16]]),
    "four, two of them equal": ([Q] * 4, [[7, 8, 9], [7, 8, 10], [7, 8, 9], [20, 21, 22]]),
    "one token and one token": ([[5]], [[6]]),
}


def built(build: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return build().eval().to(dtype)


def off(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error."""
    return float((got - expected).norm() / expected.norm())


def gradient(model: Any) -> torch.Tensor:
    """Of all parameters, as one vector."""
    return torch.cat([weights.grad.flatten() for weights in model.parameters()])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=str)
def test_logps_and_gradients_are_those_of_rows(name: str, batch: str, dtype: torch.dtype, tolerance: float) -> None:
    model = built(MODELS[name], dtype)
    scorer = make_scorer(model)
    assert (scorer.way, scorer.fallback) == ("shared", None)
    gradients = []
    for score in (lambda: suffix_logps(model, *BATCHES[batch]), lambda: scorer(*BATCHES[batch])):
        model.zero_grad()
        logps_BT, mask_BT = score()
        (logps_BT * torch.arange(1, logps_BT.numel() + 1).view_as(logps_BT)).sum().backward()
        gradients.append((logps_BT.detach(), mask_BT, gradient(model)))
    (expected_BT, expected_mask_BT, expected), (logps_BT, mask_BT, got) = gradients
    assert torch.equal(mask_BT, expected_mask_BT)
    assert logps_BT.dtype == expected_BT.dtype == dtype
    assert ((logps_BT - expected_BT).abs() <= tolerance * expected_BT.abs()).all()
    # The norms of these models compute in float32 whatever their type is.
    assert off(got, expected) <= max(tolerance, 1e-6)


def cohort(number: int) -> PolicyCohort:
    ids = [(7 + number, 8, 9), (20, 21 + number), (20, 30, 31, 32), (20, 21 + number)]
    candidates = tuple(
        TokenCandidate(
            f"c{i}", Origin.ROLLOUT if i else Origin.ORIGINAL, own, "text", (-3.0,) * len(own) if i else None
        )
        for i, own in enumerate(ids)
    )
    judged = Judged({c.id: float(i) for i, c in enumerate(candidates)}, {}, candidates[2], candidates[1])
    return PolicyCohort(f"c{number}", Window(0, number, (1, *range(2, 3 + number)), ids[0]), 0, candidates, judged)


@pytest.mark.parametrize("objective", ["dpo", "grpo", "rf_nll", "nll"])
@pytest.mark.parametrize("name", ["llama, tied", "qwen2"])
def test_losses_and_their_gradients_are_those_of_rows(name: str, objective: str) -> None:
    chosen = make_objective(ObjectiveConfig.model_validate({"name": objective}), 4)
    sequences = chosen.sequences([cohort(number) for number in range(3)], 0)
    pairs = [s.prefix for s in sequences], [s.suffix for s in sequences]
    reference, losses, gradients = built(MODELS[name]), [], []
    for way in ("off", "auto"):
        model = copy.deepcopy(reference)
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(1.05)
        scorer, frozen = make_scorer(model, way), make_scorer(copy.deepcopy(reference), way)
        with torch.no_grad():
            reference_BT, _ = frozen(*pairs)
        policy_BT, mask_BT = scorer(*pairs)
        loss, _ = chosen.loss(LossInputs(sequences, policy_BT, reference_BT, mask_BT))
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradients.append(gradient(model))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert off(gradients[1], gradients[0]) <= 1e-5


def way_of(build: Callable[[], Any]) -> SuffixScorer:
    return make_scorer(built(build))


@pytest.mark.parametrize(
    ("build", "way", "why"),
    [
        (tiny_gpt2, "shared", None),
        (lambda: CohereForCausalLM(CohereConfig(**SIZES)), "logits", None),
        (lambda: PhiForCausalLM(PhiConfig(**SIZES)), "logits", None),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=16)), "rows", "softcap"),
        (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=5)), "rows", "5 tokens back"),
        (lambda: LlamaForCausalLM._from_config(LlamaConfig(**SIZES), attn_implementation="eager"), "rows", "eager"),
    ],
    ids=["absolute positions", "scaled logits", "biased logits", "soft cap", "window too short", "eager attention"],
)
def test_a_model_is_scored_in_the_best_way_that_is_exact(build: Callable[[], Any], way: str, why: str | None) -> None:
    scorer = way_of(build)
    assert scorer.way == way
    assert scorer.fallback is None if why is None else why in str(scorer.fallback)
    batch = BATCHES["unequal lengths"]
    with torch.no_grad():
        torch.testing.assert_close(scorer(*batch), suffix_logps(built(build), *batch), rtol=1e-5, atol=1e-6)


def test_a_model_that_does_otherwise_than_its_attention_says_is_found_out() -> None:
    model = built(MODELS["llama"])
    norm = model.model.norm.forward
    # Looks at its neighbour in the row, as a convolution would.
    model.model.norm.forward = lambda hidden: norm(hidden + 0.01 * hidden.roll(1, dims=1))
    scorer = make_scorer(model)
    assert scorer.way == "rows"
    assert "off by" in str(scorer.fallback)
    assert model.config._attn_implementation == "sdpa"


def test_sequences_longer_than_a_models_window_are_scored_in_rows() -> None:
    build = lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16))  # noqa: E731
    scorer = way_of(build)
    assert scorer.way == "shared"
    prefixes, suffixes = [list(range(14))] * 2, [[1, 2], [3, 4, 5, 6]]
    with torch.no_grad():
        got_BT, _ = scorer(prefixes, suffixes)
        expected_BT, _ = suffix_logps(built(build), prefixes, suffixes)
    torch.testing.assert_close(got_BT, expected_BT, rtol=1e-5, atol=1e-6)


def test_calls_without_a_tree_are_as_before() -> None:
    ids = torch.tensor([[0, 0, 3, 4, 5], [6, 7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    model = built(MODELS["llama"])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        make_scorer(model)
        assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)
        assert model.generate(ids[1:], max_new_tokens=3, do_sample=False).shape == (1, 8)


def test_the_prefix_is_computed_once() -> None:
    model = built(MODELS["llama"])
    scorer = make_scorer(model)
    seen: list[int] = []
    model.model.layers[0].mlp.register_forward_hook(
        lambda _module, inputs, _out: seen.append(inputs[0][..., 0].numel())
    )
    scorer([P] * 3 + [Q], [[7, 8], [9], [10, 11, 12], [13]])
    assert seen == [len(P) + 2 + 1 + 3 + len(Q) + 1]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_way_that_a_gpu_takes_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class MaskedTree(Tree):
        def __init__(self, layout: Layout, device: torch.device) -> None:
            super().__init__(layout, device)
            self.runs, self.mask = None, block_mask(layout, device)

    model = built(MODELS["qwen2"])
    scorer = make_scorer(model)
    with torch.no_grad():
        expected_BT, _ = scorer(*BATCHES["unequal lengths"])
        monkeypatch.setattr("preceptor_trainer.scoring.scorer.Tree", MaskedTree)
        got_BT, _ = scorer(*BATCHES["unequal lengths"])
    torch.testing.assert_close(got_BT, expected_BT, rtol=1e-5, atol=1e-6)


def test_off_is_rows() -> None:
    model = built(MODELS["llama"])
    assert make_scorer(model, "off").way == "rows"
    assert model.config._attn_implementation == "sdpa"


def test_making_a_scorer_draws_no_random_numbers_and_leaves_the_mode_alone() -> None:
    model = built(MODELS["llama"]).train()
    state = torch.get_rng_state()
    make_scorer(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_checkpointed_layers_give_the_same_gradients() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = built(MODELS["qwen2"])
        scorer = make_scorer(model)
        if checkpointed:
            model.train().gradient_checkpointing_enable({"use_reentrant": False})
        scorer(*BATCHES["unequal lengths"])[0].sum().backward()
        gradients.append([weights.grad for weights in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_under_autocast_products_are_narrow_and_figures_close() -> None:
    model = built(MODELS["llama"])
    scorer = make_scorer(model)
    exact_BT, _ = scorer(*BATCHES["unequal lengths"])
    with torch.autocast("cpu", torch.bfloat16):
        logps_BT, _ = scorer(*BATCHES["unequal lengths"])
    logps_BT.sum().backward()
    assert logps_BT.dtype == torch.float32
    assert 1e-6 < off(logps_BT, exact_BT) < 0.05
    assert all(weights.grad.dtype == torch.float32 for weights in model.parameters())


def test_the_same_update_twice_is_the_same_to_the_last_bit() -> None:
    def gradients() -> Sequence[torch.Tensor]:
        model = built(MODELS["llama, tied"])
        make_scorer(model)(*BATCHES["unequal lengths"])[0].sum().backward()
        return [weights.grad for weights in model.parameters()]

    torch.use_deterministic_algorithms(True)
    try:
        assert all(itertools.starmap(torch.equal, zip(gradients(), gradients(), strict=True)))
    finally:
        torch.use_deterministic_algorithms(False)
