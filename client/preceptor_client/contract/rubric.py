"""Rubrics: how one axis is judged, as data. A service has its own; a request may bring others. No I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from preceptor_client.contract.base import AxisName, Message, Share

MAX_PROMPT_CHARS = 32_768
Label = Annotated[str, Field(max_length=128)]
"""Every answer is searched for it."""

Endpoint = Literal["completion", "chat"]
Parser = Literal["exact", "final_line", "json"]
"""Where the verdict belongs: the whole answer; the last line, as `Verdict: LABEL`; the field `verdict` (or `ranking`)
of one JSON object."""
Constraint = Literal["none", "tokens", "choice", "json"]
"""How decoding is bound to the labels. `tokens`: only the labels' tokens are allowed (each must be one token; costs
nothing measurable); `choice`: vLLM's structured outputs (about a tenth slower on one-token answers); `json`: a JSON
object with `reasoning`, then the verdict, by the protocol's `response_format`."""
RubricName = Annotated[str, Field(max_length=97, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*/[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
"""`<set>/<rubric>`."""


class Mode(StrEnum):
    """What one question to the teacher is about."""

    POINTWISE = "pointwise"
    """One candidate by itself."""
    PAIRWISE = "pairwise"
    """Two candidates; a schedule says which."""
    BEST_OF = "best_of"
    """All candidates at once: which is the best."""
    RANKING = "ranking"
    """All candidates at once: their order from best to worst."""


LISTWISE = frozenset({Mode.BEST_OF, Mode.RANKING})


class RubricSpec(Message):
    """How one axis is judged.

    `prompt` and `system` are Jinja templates. They see `prefix`, `reference` and `fence`, a mark that occurs in none of
    the texts, and `candidate` (pointwise), `a` and `b` (pairwise) or the list `candidates` (best_of, ranking), which
    are numbered from 1.
    """

    axis: AxisName
    mode: Mode
    description: Annotated[str, Field(max_length=1_000)] = ""
    endpoint: Endpoint = "chat"
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]
    """The text to complete, or the user's message."""
    system: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = None
    """The system message, for `chat`."""
    labels: Annotated[dict[Label, Share], Field(max_length=64)] = Field(default_factory=dict)
    """Verdict -> score; in pairwise rubrics the score of `a`: 1, 0 or 0.5. Listwise rubrics have none: the verdict is a
    candidate's number, or all of them in order."""
    parser: Parser
    constraint: Constraint = "none"
    reference: Literal["required", "unused"] = "unused"
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 512
    """Longest answer."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.system is not None and self.endpoint != "chat":
            raise ValueError("system needs endpoint: chat")
        if self.mode in LISTWISE:
            if self.labels:
                raise ValueError(f"mode {self.mode} takes no labels: the verdict is made of the candidates' numbers")
            if self.constraint == "tokens":
                raise ValueError(f"constraint tokens cannot bind a {self.mode} rubric: use json, choice or none")
            if self.constraint == "choice" and self.mode is Mode.RANKING:
                raise ValueError("constraint choice cannot bind a ranking: use json or none")
        else:
            self._check_labels()
        if self.constraint != "none" and (self.constraint == "json") != (self.parser == "json"):
            raise ValueError(f"parser {self.parser!r} cannot read what constraint {self.constraint!r} makes")
        if self.constraint == "choice" and self.parser == "final_line":
            raise ValueError("parser 'final_line' cannot read what constraint 'choice' makes")
        if self.constraint == "tokens" and self.max_tokens != 1:
            raise ValueError("constraint tokens needs max_tokens: 1")
        return self

    def _check_labels(self) -> None:
        if len({label.strip().casefold() for label in self.labels}) < max(2, len(self.labels)):
            raise ValueError("labels must be at least two, and differ in more than case and space")
        if self.mode is Mode.PAIRWISE:
            scores = set(self.labels.values())
            if not {0.0, 1.0} <= scores <= {0.0, 0.5, 1.0}:
                raise ValueError(
                    "labels of a pairwise rubric must score 1 (a is better), 0 (b is) and perhaps 0.5 (neither)"
                )


class RubricInfo(Message):
    """A rubric that a service has. `default` says that it judges its axis when a request names no other."""

    name: RubricName
    hash: str
    default: bool
    spec: RubricSpec


class RubricList(Message):
    """The answer of `GET /v1/rubrics`."""

    rubrics: tuple[RubricInfo, ...]
