"""Rubric files: from YAML on disk to checked specs, with errors that name file and line.

    brevity.yaml                         one rubric: the keys of `RubricSpec`
    brevity/rubric.yaml + *.jinja        the same as a folder

In: a path. `prompt` and `system` are given as text, or as `prompt_file` and `system_file` beside the YAML file. Out: a
`Sourced` spec, which still knows where its parts stand, so that whoever compiles the templates can name the line.
Raises `RubricError`. Reads files, nothing else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from preceptor_client.config import describe_problem
from preceptor_client.contract import Endpoint, Message, RubricSpec

SpecT = TypeVar("SpecT", bound=BaseModel)
_TEXTS = ("prompt", "system")


class RewriteSpec(Message):
    """`rewrite.yaml`. Templates see `prefix`, `suffix`, `fence` and `join`, the prefix's last `join_words` words."""

    endpoint: Endpoint = "chat"
    prompt: Annotated[str, Field(min_length=1)]
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=8192)]
    join_words: Annotated[int, Field(ge=0, le=32)] = 0
    """Words of the prefix that the teacher repeats before the rewrite, for a smooth join; they are taken off again."""

    @model_validator(mode="after")
    def _system_is_for_chat(self) -> Self:
        if self.system is not None and self.endpoint != "chat":
            raise ValueError("system needs endpoint: chat")
        return self


class RubricError(ValueError):
    """A rubric cannot be used; the text names file and line, and what to change."""


@dataclass(frozen=True)
class Sourced(Generic[SpecT]):
    """A checked spec, the file it came from, and where each of its texts begins: a file and its line 0."""

    spec: SpecT
    path: Path
    texts: Mapping[str, tuple[Path, int]]

    def where(self, text: str, line: int) -> str:
        """`file:line` of a line, counted from 1, of `prompt` or `system`."""
        path, start = self.texts[text]
        return f"{path}:{start + line}"


def find_set(source: str | Path) -> Path:
    """The folder of a rubric set: one that the services package, by name, or one of the user's own."""
    # Data of another package, found and not imported: the services may not be able to run here.
    services = importlib.util.find_spec("preceptor_services")
    places = services.submodule_search_locations if services else None
    packaged = [Path(place) / "rubrics" / source for place in places or ()]
    for path in (*packaged, Path(source)):
        if (path / "set.yaml").is_file():
            return path
    raise RubricError(f"rubrics: {str(source)!r} is neither a packaged set nor a folder with a set.yaml")


def load_rubric(path: Path) -> RubricSpec:
    """The rubric in a file or in a folder's `rubric.yaml`. Its templates are not compiled here."""
    return read_spec(path / "rubric.yaml" if path.is_dir() else path, RubricSpec).spec


def read_spec(path: Path, model: type[SpecT]) -> Sourced[SpecT]:
    """The file as `model`, which may have the fields `prompt` and `system`."""
    source = _read(path)
    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
        content = yaml.safe_load(source)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RubricError(f"{path}:{line}: is not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RubricError(f"{path}: is not YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(root, yaml.MappingNode):
        raise RubricError(f"{path}:1: must hold a mapping of keys to values, not {type(content).__name__}")
    _check_keys(path, root)
    texts = _bring_texts(path, root, content)
    try:
        spec = model.model_validate(content)
    except ValidationError as error:
        problems = [f"{path}:{_line_of(root, p['loc'])}: {describe_problem(p)}" for p in error.errors()]
        raise RubricError("\n".join(problems)) from None
    return Sourced(spec, path, texts)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RubricError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RubricError(f"{path}: is not UTF-8: {error.reason} at byte {error.start}") from None


def _bring_texts(path: Path, root: yaml.MappingNode, content: dict[str, Any]) -> dict[str, tuple[Path, int]]:
    """Put the texts of `<text>_file` into `content`. Returns where each text begins."""
    places: dict[str, tuple[Path, int]] = {}
    for text in _TEXTS:
        named = content.pop(f"{text}_file", None)
        if named is not None:
            line = _line_of(root, (f"{text}_file",))
            if text in content:
                raise RubricError(f"{path}:{line}: {text} and {text}_file are both given: leave one out")
            if not isinstance(named, str) or Path(named).name != named:
                raise RubricError(f"{path}:{line}: {text}_file must be the name of a file beside this one")
            places[text] = (path.with_name(named), 0)
            try:
                content[text] = _read(path.with_name(named))
            except RubricError as error:
                raise RubricError(f"{path}:{line}: {text}_file: {error}") from None
        elif (node := _value(root, text)) is not None:
            block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
            places[text] = (path, node.start_mark.line + (1 if block else 0))
    return places


def _check_keys(path: Path, node: yaml.Node) -> None:
    """Of a repeated key YAML's last one would win, silently; and a plain `yes` is a truth value, not a label."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        place = f"{path}:{key.start_mark.line + 1}"
        if key.tag != "tag:yaml.org,2002:str":
            raise RubricError(f"{place}: {key.value}: is not text to YAML: put it in quotes")
        if key.value in seen:
            raise RubricError(f"{place}: {key.value}: is given twice")
        seen.add(key.value)
        _check_keys(path, value)


def _line_of(root: yaml.Node, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `location` that is there, counted from 1."""
    line, node = root.start_mark.line + 1, root
    for part in location:
        found = next(((key, value) for key, value in _entries(node) if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _value(root: yaml.Node, key: str) -> yaml.Node | None:
    return next((value for found, value in _entries(root) if found.value == key), None)


def _entries(node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []
