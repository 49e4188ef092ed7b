"""What all adapters share: texts in, one score per text out.

    groups (prompt, texts) -> cohorts -> judge -> verdicts -> one score a text, or the reason why there is none

In: groups of texts that continue the same prompt. Out: a `Scored` per text, in order. Guarantees: a score is the
judge's own, the weighted mean over the axes or the service's composite; a text without a verdict on every axis has
None. Waits for the answers; groups are judged side by side. Raises `PreceptorError` where asking again cannot help (a
refused key, an unknown axis); a service that stays away leaves its groups without scores, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from preceptor_client.calls import content_hash
from preceptor_client.contract import (
    MAX_CANDIDATES,
    MAX_TEXT_CHARS,
    Candidate,
    Cohort,
    Composition,
    JudgeRequest,
    JudgeResponse,
    Order,
    Origin,
    RubricSpec,
    Sampling,
    ScheduleName,
)
from preceptor_client.errors import RateLimitedError, ServiceError, ServiceUnreachableError
from preceptor_client.sdk import AsyncPreceptorClient, PreceptorClient
from preceptor_client.settings import ClientSettings

log = logging.getLogger(__name__)

PASSING_ERRORS = (ServiceUnreachableError, ServiceError, RateLimitedError)
"""What the client has retried already and may still pass by itself: not a mistake of the caller."""
REFERENCE_ID = "reference"
ALONE = "it compares texts, and there is one: ask about several that continue the prompt, or set against_reference"
TOO_LONG = f"the text, its prompt or its reference is longer than {MAX_TEXT_CHARS} characters"


class UnjudgedError(RuntimeError):
    """A text has no score, and the tool that asked has no way to leave it out."""


@dataclass(frozen=True)
class Group:
    """Texts that continue one prompt: judged together, so that they can be compared."""

    prompt: str
    texts: tuple[str, ...]
    reference: str | None = None


@dataclass(frozen=True)
class Scored:
    """One text's score in [0, 1]; None, with the reason, if it could not be judged."""

    score: float | None
    axes: dict[str, float] = field(default_factory=dict)
    """Scores of the axes that were judged."""
    reason: str | None = None


@dataclass(frozen=True)
class _Question:
    """What is asked about one group (None: nothing can be), and which of its texts are in the request."""

    request: JudgeRequest | None
    asked: list[bool]


_Answer = JudgeResponse | str | None
"""A response, or why there is none; None if nothing was asked."""


class Scorer:
    """Judges groups of texts. Can be pickled; connections are opened at the first use.

    `axes` are names, or names with weights: the score is the weighted mean. A `composition` (weights and gates) takes
    its place. `against_reference` puts the reference among the candidates: a text that comes alone then has a rival,
    where axes that compare would have nothing to say. Groups with failed verdicts are asked up to `attempts` times.
    """

    def __init__(
        self,
        axes: str | Sequence[str] | Mapping[str, float] = ("quality",),
        *,
        composition: Composition | None = None,
        rubrics: Mapping[str, str | RubricSpec] | None = None,
        schedule: ScheduleName | None = None,
        order: Order | None = None,
        sampling: Sampling | None = None,
        deadline_s: float | None = None,
        against_reference: bool = False,
        attempts: int = 2,
        settings: ClientSettings | None = None,
        client: PreceptorClient | None = None,
        async_client: AsyncPreceptorClient | None = None,
    ) -> None:
        if composition is not None:
            axes = composition.axes
        elif isinstance(axes, str):
            axes = (axes,)
        self.axes = tuple(axes)
        self._weights = dict(axes) if isinstance(axes, Mapping) else dict.fromkeys(axes, 1.0)
        if not self._weights or min(self._weights.values()) <= 0:
            raise ValueError(f"axes: give at least one axis, and weights above 0 (found: {axes})")
        if attempts < 1:
            raise ValueError(f"attempts: must be at least 1 (found: {attempts})")
        self._composition = composition
        self._against_reference = against_reference
        self._options: dict[str, Any] = {
            "axes": self.axes,
            "rubrics": dict(rubrics or {}),
            "schedule": schedule,
            "order": order,
            "sampling": sampling,
            "composition": composition,
            "deadline_s": deadline_s,
        }
        self._attempts = attempts
        self._settings = settings or ClientSettings()
        self._client = client
        self._async_client = async_client
        self._loop: asyncio.AbstractEventLoop | None = None

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """The scores of every group's texts."""
        client = self._client = self._client or PreceptorClient(settings=self._settings)
        questions = [self._question(group) for group in groups]
        with ThreadPoolExecutor(self._settings.max_connections) as threads:
            answers = list(threads.map(lambda question: self._ask(client, question), questions))
        return [self._findings(*each) for each in zip(questions, answers, strict=True)]

    async def score_async(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """As `score`, from an event loop."""
        client = self._client_of_this_loop()
        questions = [self._question(group) for group in groups]
        answers = await asyncio.gather(*(self._ask_async(client, question) for question in questions))
        return [self._findings(*each) for each in zip(questions, answers, strict=True)]

    def score_texts(
        self, prompts: Sequence[str], texts: Sequence[str], references: Sequence[str | None]
    ) -> list[Scored]:
        """A score per text, in order. Texts of the same prompt and reference are one group."""
        groups, places = grouped(prompts, texts, references)
        found = self.score(groups)
        return [found[group][place] for group, place in places]

    async def score_texts_async(
        self, prompts: Sequence[str], texts: Sequence[str], references: Sequence[str | None]
    ) -> list[Scored]:
        """As `score_texts`, from an event loop."""
        groups, places = grouped(prompts, texts, references)
        found = await self.score_async(groups)
        return [found[group][place] for group, place in places]

    def _ask(self, client: PreceptorClient, question: _Question) -> _Answer:
        response = None
        for _ in range(self._attempts):
            if question.request is None or (response is not None and response.final):
                break
            try:
                response = client.judge(question.request)
            except PASSING_ERRORS as error:
                return str(error)
        return response

    async def _ask_async(self, client: AsyncPreceptorClient, question: _Question) -> _Answer:
        response = None
        for _ in range(self._attempts):
            if question.request is None or (response is not None and response.final):
                break
            try:
                response = await client.judge(question.request)
            except PASSING_ERRORS as error:
                return str(error)
        return response

    def _question(self, group: Group) -> _Question:
        """What is asked about a group; what is too long stays out."""
        rival = group.reference if self._against_reference else None
        room = MAX_CANDIDATES - (rival is not None)
        if len(group.texts) > room:
            raise ValueError(f"{len(group.texts)} texts for one prompt: a cohort holds at most {room}, ask for fewer")
        fits = len(group.prompt) <= MAX_TEXT_CHARS and len(group.reference or "") <= MAX_TEXT_CHARS
        asked = [fits and len(text) <= MAX_TEXT_CHARS for text in group.texts]
        candidates = [Candidate(id=f"c{i}", text=text) for i, text in enumerate(group.texts) if asked[i]]
        if not candidates:
            return _Question(None, asked)
        if rival is not None:
            candidates.append(Candidate(id=REFERENCE_ID, origin=Origin.ORIGINAL, text=rival))
        cohort = Cohort(id="unnamed", prefix=group.prompt, candidates=tuple(candidates), reference=group.reference)
        cohort = cohort.model_copy(update={"id": content_hash(cohort)})
        return _Question(JudgeRequest(cohort=cohort, **self._options), asked)

    def _findings(self, question: _Question, answer: _Answer) -> list[Scored]:
        if isinstance(answer, str):
            log.warning("%d texts stay without a score: %s", sum(question.asked), answer)
        return [
            self._scored(answer, f"c{index}")
            if asked and isinstance(answer, JudgeResponse)
            else Scored(None, reason=answer if asked and isinstance(answer, str) else TOO_LONG)
            for index, asked in enumerate(question.asked)
        ]

    def _scored(self, response: JudgeResponse, candidate_id: str) -> Scored:
        """One candidate's verdicts as one score."""
        verdicts = {verdict.axis: verdict for verdict in response.verdicts if verdict.candidate_id == candidate_id}
        alone = len(response.verdicts) == len(verdicts)
        for axis, verdict in verdicts.items():
            if alone and verdict.score is not None and not any(verdict.votes.counts.values()):
                return Scored(None, reason=f"{axis}: {ALONE}")
        axes = {axis: verdict.score for axis, verdict in verdicts.items() if verdict.score is not None}
        if self._composition is not None:
            composites = [each for each in response.composites if each.candidate_id == candidate_id]
            if not composites:
                return Scored(None, axes, "the service gave no composite")
            return Scored(composites[0].score, axes, composites[0].reason)
        for axis in self.axes:
            if axis not in verdicts:
                return Scored(None, axes, f"{axis}: the service gave no verdict")
            if axis not in axes:
                return Scored(None, axes, f"{axis} {verdicts[axis].status}: {verdicts[axis].reason}")
        return Scored(sum(w * axes[axis] for axis, w in self._weights.items()) / sum(self._weights.values()), axes)

    def _client_of_this_loop(self) -> AsyncPreceptorClient:
        """Connections belong to the event loop that opened them."""
        loop = asyncio.get_running_loop()
        if self._async_client is None or (self._loop is not None and self._loop is not loop):
            self._async_client, self._loop = AsyncPreceptorClient(settings=self._settings), loop
        return self._async_client

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_async_client": None, "_loop": None}


def grouped(
    prompts: Sequence[str], texts: Sequence[str], references: Sequence[str | None]
) -> tuple[list[Group], list[tuple[int, int]]]:
    """Texts of the same prompt and reference as groups, and where each text went: (group, place in it)."""
    members: dict[tuple[str, str | None], list[str]] = {}
    places = []
    for prompt, text, reference in zip(prompts, texts, references, strict=True):
        texts_so_far = members.setdefault((prompt, reference), [])
        places.append(((prompt, reference), len(texts_so_far)))
        texts_so_far.append(text)
    number = {key: index for index, key in enumerate(members)}
    groups = [Group(prompt, tuple(group), reference) for (prompt, reference), group in members.items()]
    return groups, [(number[key], place) for key, place in places]


def plain_text(content: Any) -> str:
    """A prompt or completion as text: a string as it is, one chat message's content, several as `role: content`."""
    if isinstance(content, str):
        return content
    messages = [(str(message.get("role", "")), _content_text(message.get("content"))) for message in content]
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in messages)


def _content_text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(str(part.get("text") or f"[{part.get('type')}]") for part in content)
