"""One way to configure everything: a YAML file, then the environment, then `--a.b=c` arguments; the last wins.

A file may `include: [others.yaml]`, whose paths are relative to it: they come first, in order, and what the file says
itself comes over them. `--include=FILE` puts one over the file that was given.

In: a pydantic model class, a file, overrides. Out: a checked instance. Raises `ConfigError`, whose text names the key,
what was found there and what is wrong with it. Reads these files and the environment, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from preceptor_client.masking import shown

ConfigT = TypeVar("ConfigT", bound=BaseModel)
_WORDS = {"extra_forbidden": "there is no such key", "missing": "is missing"}
"""Instead of pydantic's, by the type of a problem."""


class ConfigError(ValueError):
    """The configuration cannot be used; the text says what to change."""


def load_config(
    model: type[ConfigT], path: Path | None = None, overrides: Sequence[str] = (), *, env_prefix: str
) -> ConfigT:
    """The `model` that `path`, the environment (`<env_prefix>A__B=c`) and `overrides` (`--a.b=c`) describe together."""
    values = _from_file(path) if path else {}
    above = _from_overrides(overrides)
    for other in _included(above, "the command line"):
        values = _merge(values, _from_file(Path(other)))
    for layer in (_from_environment(model, env_prefix), above):
        values = _merge(values, layer)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        where = path or "the configuration"
        raise ConfigError(f"{where} does not hold:\n{describe(error)}") from None


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load_config` reads back, once the secrets in it are given again: see
    `preceptor_client.masking`."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Escapes what cannot be seen: PyYAML does not read back every line break that it writes as it is."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def describe(error: ValidationError) -> str:
    """A validation error in a reader's words: one line a problem, `key: what is wrong (found: value)`."""
    return "\n".join(f"  {describe_problem(problem)}" for problem in error.errors())


def describe_problem(problem: ErrorDetails) -> str:
    """One entry of a validation error: `key: what is wrong (found: value)`. What is wrong with several keys together
    names them itself, and a whole section is not shown: secrets may be in it."""
    key = ".".join(map(str, problem["loc"]))
    what = f"{key}: {in_words(problem)}" if key else in_words(problem)
    if isinstance(problem["input"], Mapping | BaseModel):
        return what
    found = shown(repr(problem["input"]))
    return f"{what} (found: {found if len(found) <= 80 else found[:77] + '...'})"


def in_words(problem: ErrorDetails | Mapping[str, Any]) -> str:
    """What is wrong with the key of an entry."""
    return _WORDS.get(problem["type"]) or str(problem["msg"]).removeprefix("Value error, ")


def _from_file(path: Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in including:
        raise ConfigError(f"{path} includes itself: {' -> '.join(each.name for each in (*including, path))}")
    values = _mapping(path)
    below: dict[str, Any] = {}
    for other in _included(values, path):
        below = _merge(below, _from_file(path.parent / other, (*including, path.resolve())))
    return _merge(below, values)


def _included(values: dict[str, Any], where: Path | str) -> list[str]:
    """Takes `include` out of `values`."""
    names = values.pop("include", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: include takes the path of a YAML file, or a list of them (found: {names!r})")
    return names


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # wrong encoding, a date that is none, too deep
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping at its top level, not a {type(values).__name__}")
    return values


def _from_environment(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    settings: Any = type("_Environment", (model, BaseSettings), {})
    try:
        return EnvSettingsSource(settings, env_prefix=prefix, env_nested_delimiter="__")()
    except SettingsError as error:
        raise ConfigError(f"the environment's {prefix}... cannot be read: {error}: write lists as JSON") from None


def _from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.removeprefix("--").partition("=")
        parts = key.split(".")
        if not override.startswith("--") or not equals or not all(parts):
            raise ConfigError(f"cannot read the override {override!r}: write it as --section.key=value")
        try:
            nested: Any = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ConfigError(f"cannot read the override {override!r}: its value is not YAML, quote it") from None
        for part in reversed(parts):
            nested = {part: nested}
        values = _merge(values, nested)
    return values


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`, key by key where both hold mappings."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merge(below[key], above[key])
    return merged
