"""Streams of documents from files and data sets.

In: a `DataConfig`. Out: an iterator over `Document`s in a fixed order, one at a time: a corpus never has to fit in
memory, nor does a line or a text file that is over the limit. Guarantees: the n-th document is the same on every pass;
every text can be written as UTF-8. A document that cannot be used (malformed JSON, no text, bytes that are not UTF-8,
over `max_document_chars`, a file that breaks off) ends the stream with a `DocumentError` that names file and line (or
row), or, with `bad_documents: skip`, is counted in a `BadDocuments` and passed over. A source that is not there, or
holds no document that can be used, is a `DocumentError` always. May wait for the disk and, for Hugging Face data sets
that are not on this machine, for the network.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from preceptor_trainer.config import DataConfig
from preceptor_trainer.errors import TrainError, one_line

_TOLD = 5
"""Bad documents that are said one by one; the others are only counted."""
_CHUNK_BYTES = 1024 * 1024
_MOST_BYTES = 12
"""Of one character in JSON: two escapes."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Reason = Literal["unreadable", "too_long", "not_utf8", "not_json", "no_text", "not_text"]


class DocumentError(TrainError):
    """A source of documents that cannot be used, with the place: `file:line: what is wrong`."""


@dataclass(frozen=True)
class Document:
    """A text and its place in its source, counted from 0."""

    index: int
    text: str


@dataclass(frozen=True)
class Bad:
    """A document that cannot be used; `what` names the place."""

    reason: Reason
    what: str


@dataclass
class BadDocuments:
    """What was passed over, by reason, on all passes together. `say` is told the first few."""

    say: Callable[[str], None] = lambda text: None
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def figures(self) -> dict[str, int]:
        """For the run's summary: `documents_<reason>`."""
        return {f"documents_{reason}": count for reason, count in self.counts.items()}

    def add(self, bad: Bad) -> None:
        """One more."""
        self.counts[bad.reason] += 1
        if (count := self.counts.total()) <= _TOLD:
            self.say(f"passed over: {bad.what}" + ("; others will only be counted" if count == _TOLD else ""))


def stream_documents(config: DataConfig, passed_over: BadDocuments | None = None) -> Iterator[Document]:
    """One pass over the documents of `config`, in order."""
    index, first = 0, None
    for found in _SOURCES[config.source](config):
        if isinstance(found, str):
            yield Document(index, found)
            index += 1
        elif config.bad_documents == "stop":
            raise DocumentError(f"{found.what}; to pass over such documents set data.bad_documents=skip")
        else:
            first = first or found
            if passed_over:
                passed_over.add(found)
    if not index:
        why = f" that can be used; the first: {first.what}" if first else ""
        raise DocumentError(f"{config.path}: holds no document{why}")


def _jsonl(config: DataConfig) -> Iterator[str | Bad]:
    limit = _MOST_BYTES * config.max_document_chars + _CHUNK_BYTES  # the other fields need room too
    for path in _files(config.path, ".jsonl"):
        try:
            with path.open("rb") as file:
                for number, line in _lines(file, limit):
                    where = f"{path}:{number}"
                    if line is None:
                        yield Bad(
                            "too_long", f"{where}: a line of more than {limit} bytes; see data.max_document_chars"
                        )
                    elif line.strip():
                        yield _from_json(line, config, where)
        except OSError as error:
            yield _unreadable(path, error)


def _lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """The lines, counted from 1; None instead of one that is longer than `limit`, which is never held whole."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_CHUNK_BYTES)
        yield number, None


def _from_json(line: bytes, config: DataConfig, where: str) -> str | Bad:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _not_utf8(where, error)
    except (ValueError, RecursionError) as error:  # also numbers too long and nesting too deep
        return Bad("not_json", f"{where}: not JSON ({error})")
    return _text_of(record, config, where)


def _text(config: DataConfig) -> Iterator[str | Bad]:
    limit = 4 * config.max_document_chars  # bytes: no character has more in UTF-8
    for path in _files(config.path, ".txt"):
        try:
            with path.open("rb") as file:
                content = file.read(limit + len(_BYTE_ORDER_MARK) + 1).removeprefix(_BYTE_ORDER_MARK)
            text = content.decode("utf-8") if len(content) <= limit else None
        except OSError as error:
            yield _unreadable(path, error)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            yield _not_utf8(f"{path}:{line}", error)
        else:
            yield _usable(text, config, str(path))


def _parquet(config: DataConfig) -> Iterator[str | Bad]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    name = config.text_field
    for path in _files(config.path, ".parquet"):
        try:
            with ParquetFile(path) as file:
                if name not in (columns := file.schema_arrow.names):
                    yield _no_such_field(str(path), name, columns)
                    continue
                row = 0
                for batch in file.iter_batches(batch_size=1024, columns=[name]):
                    for value in batch.column(0):
                        where = f"{path}:row {row}"
                        try:
                            yield _text_of({name: value.as_py()}, config, where)
                        except UnicodeDecodeError as error:
                            yield _not_utf8(where, error)
                        row += 1
        except (ArrowException, OSError) as error:
            yield Bad("unreadable", f"{path}: not a readable Parquet file ({one_line(str(error))})")


def _huggingface(config: DataConfig) -> Iterator[str | Bad]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        rows = load_dataset(config.path, split=config.split, streaming=True)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        raise DocumentError(
            f"{config.path}: cannot open the data set ({one_line(str(error))}); set data.path or data.split"
        ) from None
    row = 0
    try:
        for record in rows:
            yield _text_of(record, config, f"{config.path}:row {row}")
            row += 1
    except Exception as error:  # every format and every transport has its own, and there is no next row after it
        raise DocumentError(f"{config.path}:row {row}: cannot be read ({one_line(str(error))})") from error


_SOURCES: dict[str, Callable[[DataConfig], Iterator[str | Bad]]] = {
    "jsonl": _jsonl,
    "text": _text,
    "parquet": _parquet,
    "huggingface": _huggingface,
}


def _files(location: str, suffix: str) -> list[Path]:
    """The file itself, or every `suffix` file below the folder, sorted."""
    path = Path(location)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DocumentError(f"{path}: no such file or folder; set data.path")
    below = os.walk(path, onerror=_unlistable)  # `rglob` leaves out what it may not list, without a word
    files = sorted(Path(folder, name) for folder, _, names in below for name in names if name.endswith(suffix))
    if not files:
        raise DocumentError(f"{path}: the folder holds no {suffix} file; set data.path or data.source")
    return files


def _unlistable(error: OSError) -> NoReturn:
    raise DocumentError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable, or set data.path")


def _text_of(record: Any, config: DataConfig, where: str) -> str | Bad:
    name = config.text_field
    if not isinstance(record, dict):
        kind = type(record).__name__
        return Bad("no_text", f"{where}: expected an object with the text under {name!r}, not {kind}")
    if name not in record:
        return _no_such_field(where, name, list(record))
    text = record[name]
    if not isinstance(text, str):
        return Bad("no_text", f"{where}: {name!r} must be a text, not {type(text).__name__}")
    return _usable(text, config, where)


def _usable(text: str | None, config: DataConfig, where: str) -> str | Bad:
    """`text`, if it is a text and within the limit; None is one that was too long to be read."""
    if text is None or len(text) > config.max_document_chars:
        return Bad("too_long", f"{where}: longer than data.max_document_chars={config.max_document_chars}")
    if (place := text.find("\0")) >= 0:
        return Bad("not_text", f"{where}: a NUL at character {place}: a binary file, or not UTF-8 but UTF-16")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        return Bad("not_text", f"{where}: {half} at character {error.start} is half of a character")
    return text


def _unreadable(path: Path, error: OSError) -> Bad:
    return Bad("unreadable", f"{path}: cannot be read ({error.strerror})")


def _not_utf8(where: str, error: UnicodeDecodeError) -> Bad:
    what = f"not UTF-8 ({error.reason} at byte {error.start}): convert it, for instance with iconv"
    return Bad("not_utf8", f"{where}: {what}")


def _no_such_field(where: str, name: str, found: list[str]) -> Bad:
    names = one_line(", ".join(map(str, found[:20]))) or "(none)"
    return Bad("no_text", f"{where}: no {name!r}; set data.text_field to one of: {names[:200]}")
