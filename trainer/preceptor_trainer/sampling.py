"""From prepared windows to cohorts: the policy's rollouts, and the pool that the candidates come from.

In: windows that were admitted together, and the policy engine (or none). Out: a `PolicyCohort` each, at the version
that sampled it. With thoughts a rollout is a thought and as many tokens after it as a suffix has: what the policy wrote
beyond is neither judged nor trained on. Guarantees: what is sampled depends on the seed, the number of calls so far,
the windows and the weights alone; the policy reads a window's control token before its prefix. Waits for the engine.
Raises `EngineError`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from preceptor_client.contract import Origin
from preceptor_trainer.codec import Codec
from preceptor_trainer.cohorts import Control, PolicyCohort, PreparedWindow, TokenCandidate
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.rollouts.engine import PolicyEngine, Rollout
from preceptor_trainer.thoughts import ThoughtFormat


class Sampler:
    """`calls` to the engine were made before; it counts on."""

    def __init__(
        self,
        config: TrainConfig,
        codec: Codec,
        engine: PolicyEngine | None,
        calls: int,
        thoughts: ThoughtFormat | None = None,
    ) -> None:
        self._config = config
        self._codec = codec
        self._engine = engine
        self._controls = {each.token: codec.control(each.token) for each in config.controls or ()}
        self._thoughts = thoughts
        self.calls = calls

    async def sample(self, windows: Sequence[PreparedWindow], version: int, k: int) -> list[PolicyCohort]:
        """The cohorts of `windows`, in order, with `k` rollouts each. `version` is theirs where there are none."""
        cohorts = [
            PolicyCohort(each.window.id, each.window, version, (), control=self._control(each)) for each in windows
        ]
        rollouts: Sequence[Sequence[Rollout]] = [()] * len(windows)
        if self._engine:
            settings = self._config.rollouts
            self.calls += 1
            sampled = await self._engine.sample(
                [cohort.prompt for cohort in cohorts],
                k=k,
                n_tokens=self._config.continuation_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=random.Random(f"{self._config.seed}/{self.calls}").getrandbits(31),
            )
            rollouts, version = sampled.of_prefix, sampled.version
        return [
            replace(cohort, version=version, candidates=self._candidates(window, of_prefix))
            for cohort, window, of_prefix in zip(cohorts, windows, rollouts, strict=True)
        ]

    def _control(self, window: PreparedWindow) -> Control | None:
        control = self._config.control(window.window.id)
        return Control(control.token, self._controls[control.token]) if control else None

    def _candidates(self, window: PreparedWindow, rollouts: Sequence[Rollout]) -> tuple[TokenCandidate, ...]:
        candidates = []
        if self._config.pool.original:
            suffix = window.window.suffix
            candidates.append(TokenCandidate("original", Origin.ORIGINAL, suffix, self._codec.decode(suffix)))
        if window.rewrite:
            candidates.append(window.rewrite)
        candidates += [self._candidate(f"rollout-{number}", rollout) for number, rollout in enumerate(rollouts)]
        return tuple(candidates)

    def _candidate(self, id: str, rollout: Rollout) -> TokenCandidate:
        thought = self._thoughts.split(rollout.ids) if self._thoughts else 0
        end = None if thought is None else thought + self._config.data.suffix_tokens
        ids, logps = rollout.ids[:end], rollout.logps[:end]
        return TokenCandidate(id, Origin.ROLLOUT, ids, self._codec.decode(ids[thought or 0 :]), logps, thought)
