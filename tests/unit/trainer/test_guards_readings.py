from __future__ import annotations

import pytest
import torch

from preceptor_client.contract import Composite, JudgeResponse, Origin, Status, Verdict
from preceptor_trainer.cohorts import PolicyCohort, TokenCandidate
from preceptor_trainer.config import ComputeConfig
from preceptor_trainer.data.windows import Window
from preceptor_trainer.guards import held_out
from preceptor_trainer.guards.readings import of_cohort, repetition
from tiny_policy import tiny_llama


def rollout(number: int, ids: tuple[int, ...], logps: tuple[float, ...]) -> TokenCandidate:
    return TokenCandidate(f"rollout-{number}", Origin.ROLLOUT, ids, "", logps)


def cohort(*rollouts: TokenCandidate) -> PolicyCohort:
    original = TokenCandidate("original", Origin.ORIGINAL, (7,) * 50, "")
    return PolicyCohort("c", Window(0, 0, (1,), (1,)), 0, (original, *rollouts))


def response(scores: dict[str, float | Status]) -> JudgeResponse:
    verdicts, composites = [], []
    for id, score in scores.items():
        ok = not isinstance(score, Status)
        reason = None if ok else "no"
        verdicts.append(
            Verdict(
                candidate_id=id,
                axis="quality",
                status=Status.OK if ok else score,
                score=score if ok else None,
                reason=reason,
            )
        )
        composites.append(Composite(candidate_id=id, score=score if ok else None, reason=reason))
    return JudgeResponse(cohort_id="c", verdicts=tuple(verdicts), axes={}, composites=tuple(composites), elapsed_s=0.0)


def test_policy_readings_are_of_the_rollouts_alone() -> None:
    rollouts = rollout(0, (1, 2, 3, 4), (-1.0, -1.0, -1.0, -1.0)), rollout(1, (5, 6), (-4.0, -4.0))
    readings = of_cohort(cohort(*rollouts), response({}))
    assert readings == {"length": 3.0, "entropy": 2.0, "repetition": 0.0}


def test_without_rollouts_there_are_no_policy_readings() -> None:
    assert of_cohort(cohort(), response({})) == {}


@pytest.mark.parametrize(
    ("ids", "expected"), [("abcd", 0.0), ("abcdefgh", 0.0), ("aaaaaaaa", 0.8), ("abababab", 0.6), ("abcdabcd", 0.2)]
)
def test_repetition_is_the_share_of_ngrams_that_occurred_before(ids: str, expected: float) -> None:
    assert repetition([ord(each) for each in ids]) == pytest.approx(expected, abs=1e-9)


def test_a_rollout_without_an_ngram_says_nothing_about_repetition() -> None:
    short, long = rollout(0, (1,), (-1.0,)), rollout(1, (1,) * 8, (-1.0,) * 8)
    assert of_cohort(cohort(short, long), response({}))["repetition"] == pytest.approx(0.8)
    assert "repetition" not in of_cohort(cohort(short), response({}))


def test_discrimination_is_the_best_score_less_the_worst_also_of_a_tie() -> None:
    def gap(*scores: float | Status) -> float | None:
        return of_cohort(cohort(), response({f"c{n}": score for n, score in enumerate(scores)})).get("discrimination")

    assert gap(0.25, 1.0, 0.5) == 0.75
    assert gap(0.5, 0.5) == 0.0
    assert gap(0.25, Status.FAILED, 0.5) == 0.25
    assert gap(0.25, Status.ABSTAINED) is None


def test_abstention_is_a_share_of_what_the_judge_answered() -> None:
    def share(*scores: float | Status) -> float | None:
        return of_cohort(cohort(), response({f"c{n}": score for n, score in enumerate(scores)})).get("abstention")

    assert share(1.0, Status.ABSTAINED, 0.5, Status.FAILED, Status.FAILED) == pytest.approx(1 / 3)
    assert share(1.0) == 0.0
    assert share(Status.FAILED) is None


@pytest.mark.parametrize("batch_tokens", [1, 20, 8192])
def test_the_held_out_nll_is_the_mean_over_all_tokens_of_plain_forward_passes(
    monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    monkeypatch.setattr(held_out, "_BATCH_TOKENS", batch_tokens)
    model, dice = tiny_llama(), torch.Generator().manual_seed(0)
    windows = []
    for number in range(5):
        words = torch.randint(2, 60, (12,), generator=dice).tolist()
        windows.append(Window(0, number, tuple(words[: 2 + number]), tuple(words[7 : 9 + number])))
    losses = []
    for window in windows:
        with torch.inference_mode():
            logps = model(torch.tensor([[*window.prefix, *window.suffix]])).logits[0].log_softmax(-1)
        losses += [-logps[len(window.prefix) + t - 1, id].item() for t, id in enumerate(window.suffix)]
    expected = sum(losses) / len(losses)
    for precision, error in (("float32", 1e-5), ("bfloat16", 0.02)):
        compute = ComputeConfig.model_validate({"precision": precision})
        assert held_out.held_out_nll(model, windows, compute) == pytest.approx(expected, rel=error)
