"""The keys file: who may call a service, and how much. Written by `preceptor keys`, read by the services.

In and out: YAML with one entry a key. A key itself is shown once, when it is made; the file holds its SHA-256. A slow
hash would add nothing: a key is 32 random bytes, which nobody can try through, unlike a password that someone chose.
Guarantees: the file is replaced as a whole, so that no reader ever sees half of it; it is made for its owner's eyes
only; of two writers at once, one is turned away. Raises `KeysError`, whose text says what to change.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from preceptor_client.config import describe
from preceptor_client.contract import Identifier, Message

PriorityName = Literal["interactive", "bulk", "training"]
Bound = Annotated[int, Field(ge=1)]
_PREFIX = "pcp_"
"""Tells what a string is, to people and to scanners for leaked keys."""


class KeysError(ValueError):
    """The keys file cannot be used."""


class KeyEntry(Message):
    """One key. What is left out of its limits is not limited."""

    name: Identifier
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    priority: PriorityName = "interactive"
    requests_per_minute: Bound | None = None
    tokens_per_minute: Bound | None = None
    """Tokens that the teacher reads and writes."""
    concurrency: Bound | None = None
    """Requests in work at once, in each process of a service."""
    created_at: AwareDatetime

    @field_validator("name")
    @classmethod
    def _is_not_what_callers_without_a_key_are_called(cls, name: str) -> str:
        if name == "anonymous":
            raise ValueError("'anonymous' is what callers without a key are called: take another name")
        return name


Keys = tuple[KeyEntry, ...]


class KeyFile(Message):
    """The file's content."""

    keys: Keys = ()

    @model_validator(mode="after")
    def _entries_differ(self) -> Self:
        for what, values in (("names", [key.name for key in self.keys]), ("hashes", [key.hash for key in self.keys])):
            if len(set(values)) != len(values):
                raise ValueError(f"the {what} of keys must differ")
        return self


def new_key() -> str:
    """A key that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(32)


def key_hash(key: str) -> str:
    """What the file holds of a key."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> KeyFile:
    """The file's content. Raises KeysError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"cannot read the keys file {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: wrong encoding, or a date that is none
        raise KeysError(f"the keys file {path} is not YAML: {error}") from None
    try:
        return KeyFile.model_validate(values if values is not None else {})
    except ValidationError as error:
        raise KeysError(f"the keys file {path} does not hold:\n{describe(error)}") from None


def add_key(
    path: Path,
    name: str,
    *,
    priority: PriorityName = "interactive",
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    concurrency: int | None = None,
) -> str:
    """Add a key to the file, which is made if there is none. Returns the key. Raises KeysError."""
    key = new_key()
    try:
        entry = KeyEntry(
            name=name,
            hash=key_hash(key),
            priority=priority,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrency=concurrency,
            created_at=datetime.now(UTC).replace(microsecond=0),
        )
    except ValidationError as error:
        raise KeysError(f"the key cannot be made:\n{describe(error)}") from None

    def with_it(keys: Keys) -> Keys:
        if any(known.name == name for known in keys):
            raise KeysError(f"{path} has a key {name!r} already: remove it first, or take another name")
        return (*keys, entry)

    _change(path, with_it)
    return key


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file. Raises KeysError if it is not there."""

    def without_it(keys: Keys) -> Keys:
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise KeysError(f"{path} has no key {name!r}; it has {', '.join(key.name for key in keys) or 'none'}")
        return left

    if not path.exists():
        raise KeysError(f"there is no keys file {path}")
    _change(path, without_it)


def _change(path: Path, change: Callable[[Keys], Keys]) -> None:
    """Replace the file by what `change` makes of it. The new file's name serves as the lock, as in git."""
    beside = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeysError(f"{beside} exists: another command is changing {path}; if none is, remove it") from None
    except OSError as error:
        raise KeysError(f"cannot write the keys file {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            known = read_keys(path).keys if path.exists() else ()
            content = KeyFile(keys=change(known)).model_dump(mode="json", exclude_none=True)
            yaml.safe_dump(content, file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
    except BaseException:
        beside.unlink()
        raise
    beside.replace(path)  # which gives the lock back: from here on `beside` may be another's
