"""The rubrics of a service: what its teacher is asked, as data.

A set is a folder, a rubric is a file or a folder (see `preceptor_client.rubrics`):

    set.yaml         what holds for the whole set: control tokens of its teacher, how whitespace is treated
    <rubric>.yaml    one per way of judging; the one named as its axis is the axis's default
    rewrite.yaml     how suffixes are rewritten: see `RewriteSpec`
    *.jinja          the prompts that these name

In: names of packaged sets, folders, files. Out: a checked `RubricBook`. Every rubric and rewrite has a `hash` that
changes with anything that changes its prompt or the reading of its answers. Raises `RubricError` naming file and
line. Reads files when loading, never later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError, field_validator

from preceptor_client.contract import Message, Mode, RubricInfo, RubricList, RubricName, RubricSpec
from preceptor_client.rubrics import RewriteSpec, RubricError, Sourced, read_spec
from preceptor_services.engine import Prompt
from preceptor_services.fencing import Neutraliser
from preceptor_services.templates import Compiled, PromptError, compile_prompt, render

PACKAGED = Path(__file__).parent / "rubrics"
_RESERVED = {"set", "rewrite"}
_NAME = TypeAdapter(RubricName)
_Where = Callable[[str, int], str]
"""Where a line of `prompt` or `system` stands, for an error."""


class SetFile(Message):
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


@dataclass(frozen=True)
class Numbered:
    """A candidate of a listwise prompt."""

    number: int
    text: str


@dataclass(frozen=True)
class _Asked:
    """A prompt as a spec describes it."""

    name: str
    """`<set>/<rubric>`."""
    hash: str
    _prompt: Compiled
    _system: Compiled | None

    def render(self, **texts: object) -> Prompt:
        """The prompt that asks about `texts`, which must have been neutralised."""
        return Prompt(
            text=render(self._prompt, **texts),
            system=render(self._system, **texts) if self._system else None,
        )


@dataclass(frozen=True)
class Rubric(_Asked):
    """How one axis is judged."""

    spec: RubricSpec


@dataclass(frozen=True)
class RewriteRubric(_Asked):
    """How suffixes are rewritten."""

    spec: RewriteSpec


@dataclass(frozen=True)
class TextRules:
    """How texts are neutralised before they enter a prompt; part of what a hash stands for."""

    control_tokens: tuple[str, ...]
    collapse_whitespace: bool


@dataclass(frozen=True)
class RubricBook:
    """All that a service can ask its teacher."""

    rubrics: Mapping[str, Rubric]
    """By name."""
    defaults: Mapping[str, Rubric]
    """By axis."""
    rewrite: RewriteRubric | None
    texts: TextRules

    @cached_property
    def neutraliser(self) -> Neutraliser:
        """What makes texts harmless for all of these prompts."""
        return Neutraliser(self.texts.control_tokens, collapse_whitespace=self.texts.collapse_whitespace)

    @property
    def axes(self) -> list[str]:
        """All that can be judged."""
        return sorted({rubric.spec.axis for rubric in self.rubrics.values()})

    @property
    def listing(self) -> RubricList:
        """What `GET /v1/rubrics` answers."""
        return RubricList(
            rubrics=tuple(
                RubricInfo(name=name, hash=rubric.hash, default=rubric in self.defaults.values(), spec=rubric.spec)
                for name, rubric in self.rubrics.items()
            )
        )

    def choose(self, axis: str, wanted: str | RubricSpec | None) -> Rubric:
        """The rubric that judges `axis`: the default, one of the book by name, or one that a request brought.

        Raises RubricError.
        """
        if isinstance(wanted, RubricSpec):
            return rubric_of(wanted, f"request/{axis}", self.texts)
        if wanted is None:
            if axis not in self.defaults:
                raise RubricError(f"axes: no rubric for {axis!r}: this service has {', '.join(self.defaults)}")
            return self.defaults[axis]
        rubric = self.rubrics.get(wanted)
        if rubric is None:
            raise RubricError(f"rubrics: no rubric {wanted!r}: this service has {', '.join(self.rubrics)}")
        if rubric.spec.axis != axis:
            raise RubricError(f"rubrics: {wanted!r} judges {rubric.spec.axis}, not {axis}")
        return rubric


def load_rubrics(*sources: str) -> RubricBook:
    """The rubrics of `sources` together; of two defaults for one axis, or two rewrites, the later counts."""
    paths = [_find(source) for source in sources]
    about = [read_spec(path / "set.yaml", SetFile).spec for path in paths if _is_set(path)]
    texts = TextRules(
        control_tokens=tuple(sorted({token for one in about for token in one.control_tokens})),
        collapse_whitespace=any(one.collapse_whitespace for one in about),
    )
    rubrics: dict[str, Rubric] = {}
    defaults: dict[str, Rubric] = {}
    rewrite: RewriteRubric | None = None
    for path in paths:
        if not _is_set(path):
            file = path / "rubric.yaml" if path.is_dir() else path
            found = _rubric(read_spec(file, RubricSpec), f"own/{path.stem}", texts)
            rubrics[found.name] = defaults[found.spec.axis] = found
            continue
        of_set = {
            file.stem: _rubric(read_spec(file, RubricSpec), f"{path.name}/{file.stem}", texts)
            for file in sorted(path.glob("*.yaml"))
            if file.stem not in _RESERVED
        }
        rubrics |= {rubric.name: rubric for rubric in of_set.values()}
        defaults |= _defaults_of(path, of_set)
        if (path / "rewrite.yaml").is_file():
            rewrite = _rewrite(read_spec(path / "rewrite.yaml", RewriteSpec), path.name, texts)
    return RubricBook(rubrics, defaults, rewrite, texts)


def rubric_of(spec: RubricSpec, name: str, texts: TextRules) -> Rubric:
    """The rubric of a spec that came without a file. Raises RubricError naming the part and its line."""
    return _compiled(spec, name, texts, lambda part, line: f"rubrics: {part} of {name}, line {line}")


def _is_set(path: Path) -> bool:
    return (path / "set.yaml").is_file()


def _find(source: str) -> Path:
    packaged = sorted(path.name for path in PACKAGED.iterdir() if path.is_dir())
    path = PACKAGED / source if source in packaged else Path(source)
    if path.is_file() or _is_set(path) or (path / "rubric.yaml").is_file():
        return path.resolve()
    if path.is_dir():
        raise RubricError(f"{path}: holds no rubric: a set needs set.yaml, a single rubric rubric.yaml")
    raise RubricError(f"rubrics: {source!r} is neither a packaged set ({', '.join(packaged)}) nor a file or folder")


def _defaults_of(path: Path, rubrics: Mapping[str, Rubric]) -> dict[str, Rubric]:
    """By axis: the only one, or the one named as the axis."""
    if not rubrics:
        raise RubricError(f"{path}: holds no rubric; add one as <axis>.yaml")
    by_axis: dict[str, list[str]] = {}
    for stem, rubric in rubrics.items():
        by_axis.setdefault(rubric.spec.axis, []).append(stem)
    defaults = {}
    for axis, stems in by_axis.items():
        if axis not in stems and len(stems) > 1:
            raise RubricError(
                f"{path}: {' and '.join(f'{stem}.yaml' for stem in stems)} judge {axis}: "
                f"name the one that is the default {axis}.yaml"
            )
        defaults[axis] = rubrics[axis if axis in stems else stems[0]]
    return defaults


def _rubric(source: Sourced[RubricSpec], name: str, texts: TextRules) -> Rubric:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise RubricError(f"{source.path}: {name!r} is no name: use letters, digits, dots, - and _") from None
    return _compiled(source.spec, name, texts, source.where)


def _compiled(spec: RubricSpec, name: str, texts: TextRules, where: _Where) -> Rubric:
    sample: dict[str, object] = {"prefix": "p", "reference": "r", "fence": "f"}
    match spec.mode:
        case Mode.POINTWISE:
            sample["candidate"] = "c"
        case Mode.PAIRWISE:
            sample |= {"a": "a", "b": "b"}
        case Mode.BEST_OF | Mode.RANKING:
            sample["candidates"] = [Numbered(1, "a"), Numbered(2, "b")]
    return Rubric(name, _hash(spec, texts), *_templates(spec, sample, where), spec=spec)


def _rewrite(source: Sourced[RewriteSpec], set_name: str, texts: TextRules) -> RewriteRubric:
    sample = {"prefix": "p", "suffix": "s", "fence": "f", "join": "p"}
    templates = _templates(source.spec, sample, source.where)
    return RewriteRubric(f"{set_name}/rewrite", _hash(source.spec, texts), *templates, spec=source.spec)


def _templates(
    spec: RubricSpec | RewriteSpec, sample: Mapping[str, object], where: _Where
) -> tuple[Compiled, Compiled | None]:
    """The compiled prompt and system of `spec`, each tried out once."""

    def compiled(part: str, source: str) -> Compiled:
        try:
            template = compile_prompt(source, sample.keys())
            render(template, **sample)
        except PromptError as error:
            raise RubricError(f"{where(part, error.line)}: {error}") from None
        return template

    return compiled("prompt", spec.prompt), None if spec.system is None else compiled("system", spec.system)


def _hash(spec: RubricSpec | RewriteSpec, texts: TextRules) -> str:
    content = json.dumps([spec.model_dump(mode="json", exclude={"description"}), asdict(texts)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
