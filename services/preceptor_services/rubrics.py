"""Rubric sets: what the teacher is asked, as data. A set is a folder:

    set.yaml         what holds for all of it: control tokens of its own, how whitespace is treated
    <axis>.yaml      one per axis: see `RubricFile`
    rewrite.yaml     how suffixes are rewritten: see `RewriteFile`
    *.jinja          the prompts that these name

In: the name of a packaged set or a folder's path. Out: a checked `RubricSet`, whose `hash`es change with anything
that changes a prompt or the reading of its answer. Raises `RubricError` naming the file and the key. Reads files when
loading, never later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from preceptor_client.config import describe
from preceptor_client.contract import AxisName
from preceptor_services.engine import Constraint, Endpoint, Prompt
from preceptor_services.fencing import Neutraliser
from preceptor_services.parsing import Parser

PACKAGED = Path(__file__).parent / "rubrics"
_RESERVED = {"set", "rewrite"}
_JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)
_JINJA.globals.clear()  # prompts need none of them, and every rendering would go through them


class RubricError(ValueError):
    """The rubric set cannot be used; the text names the file and what to change."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetFile(_File):
    """`set.yaml`."""

    description: str
    control_tokens: tuple[str, ...] = ()
    """Tokens that steer this set's teacher, beyond those of common chat templates: taken out of every text."""
    collapse_whitespace: bool = False
    """Whether runs of whitespace count as one space."""

    @field_validator("control_tokens")
    @classmethod
    def _can_be_weakened(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        for token in tokens:
            if not set(token) & set("<>[]|") or any(character.isspace() for character in token):
                raise ValueError(f"{token!r} needs one of < > [ ] | and no whitespace, or it cannot be told from words")
        return tokens


class _PromptFile(_File):
    endpoint: Endpoint
    template: str
    """Jinja file of the prompt (`completion`) or of the user's message (`chat`)."""
    system: str | None = None
    """Jinja file of the system message, for `chat`."""
    max_tokens: Annotated[int, Field(ge=1, le=8192)]

    @model_validator(mode="after")
    def _system_is_for_chat(self) -> Self:
        if self.system is not None and self.endpoint != "chat":
            raise ValueError("system needs endpoint: chat")
        return self


class RubricFile(_PromptFile):
    """`<axis>.yaml`. A template sees `prefix`, `fence` and `reference`, and `candidate` (pointwise) or `a` and `b`
    (pairwise)."""

    axis: AxisName
    mode: Literal["pointwise", "pairwise"]
    labels: dict[str, Annotated[float, Field(ge=0.0, le=1.0)]]
    """Verdict -> score; in pairwise rubrics the score of `a`: 1, 0 or 0.5."""
    parser: Parser
    constraint: Constraint = "none"
    """How decoding is bound to the labels where the engine can: see `engine.Constraint`."""
    reference: Literal["required", "unused"] = "unused"

    @model_validator(mode="after")
    def _labels_fit_the_mode(self) -> Self:
        if len({label.casefold() for label in self.labels}) < max(2, len(self.labels)):
            raise ValueError("labels must be at least two, and differ in more than case")
        if self.mode == "pairwise":
            scores = set(self.labels.values())
            if not {0.0, 1.0} <= scores <= {0.0, 0.5, 1.0}:
                raise ValueError(
                    "labels of a pairwise rubric must score 1 (a is better), 0 (b is) and perhaps 0.5 (neither)"
                )
        if self.constraint != "none" and (self.constraint == "json") != (self.parser == "json"):
            raise ValueError(f"parser {self.parser!r} cannot read what constraint {self.constraint!r} makes")
        if self.constraint == "tokens" and self.max_tokens != 1:
            raise ValueError("constraint tokens needs max_tokens: 1")
        return self


class RewriteFile(_PromptFile):
    """`rewrite.yaml`. A template sees `prefix`, `suffix`, `fence` and `join`, the prefix's last `join_words` words."""

    join_words: Annotated[int, Field(ge=0, le=32)] = 0
    """Words of the prefix that the teacher repeats before the rewrite, for a smooth join; they are taken off again."""


@dataclass(frozen=True)
class _Asked:
    """A prompt as a file of the set describes it."""

    name: str
    """`<set>/<axis>`."""
    hash: str
    template: Template
    system: Template | None

    def render(self, **texts: str | None) -> Prompt:
        """The prompt that asks about `texts`, which must have been neutralised."""
        return Prompt(
            text=self.template.render(texts),
            system=self.system.render(texts) if self.system else None,
        )


@dataclass(frozen=True)
class Rubric(_Asked):
    """How one axis is judged."""

    spec: RubricFile


@dataclass(frozen=True)
class RewriteRubric(_Asked):
    """How suffixes are rewritten."""

    spec: RewriteFile


@dataclass(frozen=True)
class RubricSet:
    """One teacher's way of being asked."""

    name: str
    description: str
    neutraliser: Neutraliser
    axes: Mapping[str, Rubric]
    rewrite: RewriteRubric | None


def load_rubrics(name_or_path: str) -> RubricSet:
    """The packaged set of that name, or the set in that folder."""
    folder = PACKAGED / name_or_path if name_or_path.isidentifier() else Path(name_or_path)
    if not folder.is_dir():
        packaged = ", ".join(sorted(path.name for path in PACKAGED.iterdir() if path.is_dir()))
        raise RubricError(f"rubrics: {name_or_path!r} is neither a packaged set ({packaged}) nor a folder")
    about, about_source = _read(folder / "set.yaml", SetFile)
    axes = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.stem in _RESERVED:
            continue
        spec, source = _read(path, RubricFile)
        if spec.axis != path.stem:
            raise RubricError(f"{path}: axis: {spec.axis!r} must be the file's name, {path.stem!r}")
        rubric = Rubric(**_asked(folder, spec, path.stem, about_source + source), spec=spec)
        texts = {"a": "a", "b": "b"} if spec.mode == "pairwise" else {"candidate": "c"}
        _try_out(folder / spec.template, rubric, prefix="p", reference="r", fence="f", **texts)
        axes[spec.axis] = rubric
    if not axes:
        raise RubricError(f"{folder}: holds no rubric; add one as <axis>.yaml")
    rewrite = None
    if (folder / "rewrite.yaml").exists():
        rewrite_spec, source = _read(folder / "rewrite.yaml", RewriteFile)
        rewrite = RewriteRubric(**_asked(folder, rewrite_spec, "rewrite", about_source + source), spec=rewrite_spec)
        _try_out(folder / rewrite_spec.template, rewrite, prefix="p", suffix="s", fence="f", join="p")
    neutraliser = Neutraliser(about.control_tokens, collapse_whitespace=about.collapse_whitespace)
    return RubricSet(folder.name, about.description, neutraliser, axes, rewrite)


FileT = TypeVar("FileT", bound=_File)


def _read(path: Path, model: type[FileT]) -> tuple[FileT, str]:
    """The checked file, and its content in one canonical spelling."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = model.model_validate(content)
    except OSError as error:
        raise RubricError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RubricError(f"{path}: is not YAML: {error}") from None
    except ValidationError as error:
        raise RubricError(f"{path} does not hold:\n{describe(error)}") from None
    return spec, json.dumps(spec.model_dump(mode="json", exclude={"description"}), sort_keys=True)


def _asked(folder: Path, spec: _PromptFile, stem: str, source: str) -> dict[str, Any]:
    """The fields of `_Asked`."""
    template, text = _compile(folder / spec.template)
    system, system_text = _compile(folder / spec.system) if spec.system else (None, "")
    digest = hashlib.sha256("\0".join((source, text, system_text)).encode()).hexdigest()
    return {"name": f"{folder.name}/{stem}", "hash": digest, "template": template, "system": system}


def _compile(path: Path) -> tuple[Template, str]:
    try:
        text = path.read_text(encoding="utf-8")
        return _JINJA.from_string(text), text
    except OSError as error:
        raise RubricError(f"{path}: cannot be read: {error.strerror}") from None
    except (TemplateError, UnicodeDecodeError) as error:
        raise RubricError(f"{path}: is not a Jinja template: {error}") from None


def _try_out(path: Path, asked: _Asked, **texts: str) -> None:
    """Render once, so that a misspelt variable is found when the set is loaded."""
    try:
        asked.render(**texts)
    except TemplateError as error:
        raise RubricError(f"{path}: {error}; a template may use {', '.join(sorted(texts))}") from None
