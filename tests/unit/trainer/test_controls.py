"""Which control a window bears, what follows from it, and who reads its token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter

from preceptor_client.contract import Origin
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import PolicyCohort, PreparedWindow
from preceptor_trainer.config import ObjectiveConfig, TrainConfig
from preceptor_trainer.data.stream import Position
from preceptor_trainer.data.windows import Window
from preceptor_trainer.objectives import make_objective
from preceptor_trainer.objectives.selection import select_by_origin
from preceptor_trainer.rollouts.engine import Rollout, Rollouts
from preceptor_trainer.sampling import Sampler
from tiny_policy import word_tokenizer

SAFE = {"token": "w50", "share": 0.25, "axes": {"safety": 1.0, "quality": 2.0}}
RAW = {"token": "w51", "share": 0.75, "prefer": ["original", "rollout"]}
IDS = {"w50": 50, "w51": 51}


def config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "out": "runs/x",
        "steps": 10,
        "model": {"path": "policy"},
        "data": {"path": "documents.jsonl"},
        "pool": {"rollouts": 2},
        "controls": [SAFE, RAW],
    }
    return TrainConfig.model_validate(values | changes)


def token(settings: TrainConfig, window: str) -> str:
    control = settings.control(window)
    assert control
    return control.token


def test_seed_and_window_alone_decide_the_control_and_each_gets_its_share() -> None:
    windows = [f"0-{number}" for number in range(2000)]
    given = [token(config(), window) for window in windows]
    assert [token(config(steps=99, run="other"), window) for window in reversed(windows)] == given[::-1]
    assert Counter(given)["w50"] / len(given) == pytest.approx(0.25, abs=0.03)
    assert [token(config(seed=1), window) for window in windows] != given


def test_a_control_replaces_what_counts_and_who_chooses() -> None:
    settings = config()
    by_token = {token(settings, window): window for window in (f"0-{number}" for number in range(40))}
    assert settings.composition(by_token["w50"]).weights == {"safety": 1.0, "quality": 2.0}
    assert settings.prefer(by_token["w50"]) is None
    assert settings.prefer(by_token["w51"]) == (Origin.ORIGINAL, Origin.ROLLOUT)
    assert settings.judged
    assert [(share, tuple(each.weights)) for share, each in settings.compositions] == [(0.25, ("safety", "quality"))]


def test_without_controls_the_run_s_own_composition_counts_for_every_window() -> None:
    settings = config(controls=None)
    assert settings.control("0-1") is None
    assert settings.composition("0-1") == settings.judge.composition
    assert settings.compositions == [(1.0, settings.judge.composition)]


def test_controls_that_all_prefer_by_origin_need_no_judge() -> None:
    assert not config(controls=[RAW, {**SAFE, "axes": None, "prefer": ["rollout", "original"]}]).judged


class Recording:
    """A policy engine that remembers what it was given to read, and writes token 7."""

    version = 3
    waiting = None

    def __init__(self) -> None:
        self.read: list[tuple[int, ...]] = []

    async def sample(self, prefixes: Sequence[Sequence[int]], *, k: int, **settings: Any) -> Rollouts:
        self.read += [tuple(prefix) for prefix in prefixes]
        return Rollouts(self.version, tuple(tuple(Rollout((7,), (-1.0,)) for _ in range(k)) for _ in prefixes))

    async def load(self, model: Any, version: int) -> None: ...

    async def close(self) -> None: ...


async def sampled(settings: TrainConfig, engine: Recording) -> list[PolicyCohort]:
    windows = [PreparedWindow(Window(0, number, (2, 3), (4, 5)), Position(0, number + 1), None) for number in range(20)]
    return await Sampler(settings, Codec(word_tokenizer()), engine, 0).sample(windows, 0, 2)


async def test_the_policy_reads_the_token_before_the_prefix_and_the_window_stays_as_it_is() -> None:
    engine = Recording()
    cohorts = await sampled(config(), engine)
    assert [cohort.prompt for cohort in cohorts] == engine.read
    for cohort in cohorts:
        assert cohort.control
        assert cohort.control.token == token(config(), cohort.window.id)
        assert cohort.prompt == (IDS[cohort.control.token], 2, 3)
        assert cohort.window.prefix == (2, 3)
        assert (cohort.version, len(cohort.candidates)) == (3, 3)
    assert len({cohort.control for cohort in cohorts}) == 2
    plain = Recording()
    assert [cohort.prompt for cohort in await sampled(config(controls=None), plain)] == plain.read == [(2, 3)] * 20


@pytest.mark.parametrize("name", ["dpo", "rf_nll"])
async def test_the_update_scores_suffixes_behind_the_token_on_every_rank(name: str) -> None:
    cohorts = await sampled(config(), Recording())
    paired = [select_by_origin(cohort, (Origin.ORIGINAL, Origin.ROLLOUT)) for cohort in cohorts]
    held = [each for each in paired if isinstance(each, PolicyCohort)]
    everywhere: TypeAdapter[list[PolicyCohort]] = TypeAdapter(list[PolicyCohort])
    assert everywhere.validate_json(everywhere.dump_json(held)) == held
    sequences = make_objective(ObjectiveConfig.model_validate({"name": name}), 2).sequences(held, 3)
    assert {sequence.prefix for sequence in sequences} == {cohort.prompt for cohort in held}
