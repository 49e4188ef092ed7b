"""What is asked of each side, so that the engine has the same to do.

In: nothing but the packaged rubrics. Out: bodies in which `@` stands for a number that no other request has, in every
text that reaches a prompt, so that no cache and no sharing of answers helps. Guarantees: the chat that LiteLLM is asked
to pass on, and that the engine is asked directly, is the one that our judge makes of its request.
"""

from __future__ import annotations

import json

from benchmarks.gateway_parts.upstream import MODEL
from preceptor_client.contract import Candidate, Cohort, JudgeRequest, Sampling
from preceptor_services.engine.protocol import body_of
from preceptor_services.judging.asking import generation_for
from preceptor_services.judging.texts import Texts
from preceptor_services.rubrics import load_rubrics

CANDIDATES = 4
_TURN = "TURN"
_PREFIX = (
    "Note TURN. The heart of an octopus is unusual: the animal has more than one of them, and its blood is blue, "
    "because the protein that carries oxygen in it holds copper, where ours holds iron. In cold water"
)
_SUFFIX = (
    "that protein works better than ours would, which is one reason (note TURN) why these animals live in the deep "
    "sea as well as near the coast."
)
_RUBRICS = load_rubrics("nano", "instruct")
_SAFETY = _RUBRICS.rubrics["instruct/safety"]


def verdict_request() -> bytes:
    """One candidate on one axis that is judged by itself: one chat with the teacher."""
    return _marked(_request(1, ("safety",), "instruct").model_dump_json(exclude_defaults=True))


def cohort_request() -> bytes:
    """A cohort on all axes, by the rubrics that complete a text: a pairwise one and two that look at each candidate."""
    axes = ("quality", "safety", "factuality")
    return _marked(_request(CANDIDATES, axes, "nano").model_dump_json(exclude_defaults=True))


def chat_request() -> bytes:
    """The chat that `verdict_request` comes down to."""
    texts = Texts.of(_request(1, ("safety",), "instruct").cohort, _RUBRICS.neutraliser)
    body = body_of(
        [_SAFETY.render(**texts.shared, candidate=texts.distinct[0])],
        generation_for(_SAFETY.spec, Sampling()),
        model=MODEL,
        constraint=_SAFETY.spec.constraint,
        label_tokens={},
    )
    return _marked(json.dumps(body))


def _request(candidates: int, axes: tuple[str, ...], rubrics: str) -> JudgeRequest:
    return JudgeRequest(
        cohort=Cohort(
            id=f"cohort-{_TURN}",
            prefix=_PREFIX,
            candidates=tuple(
                Candidate(id=f"rollout-{number}", text=f"{_SUFFIX} {number}") for number in range(candidates)
            ),
        ),
        axes=axes,
        rubrics={axis: f"{rubrics}/{axis}" for axis in axes},
    )


def _marked(body: str) -> bytes:
    assert "@" not in body
    return body.replace(_TURN, "@").encode()
