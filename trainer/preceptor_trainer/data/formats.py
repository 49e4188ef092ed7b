"""The formats in which documents come: what a shard of each holds.

In: shards and a `DataConfig`. Out: for each document `Raw`, or `Bad` with the place and what is wrong with it. A line
or a text file that is over the limit is never held whole. Guarantees: a text can be written as UTF-8 and is within
`max_document_chars`. May wait for the disk or the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, BinaryIO, Literal

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.shards import COMPRESSED, Shard
from preceptor_trainer.errors import one_line

_CHUNK_BYTES = 1024 * 1024
_MOST_BYTES = 12
"""Of one character in JSON: two escapes."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Reason = Literal["unreadable", "too_long", "not_utf8", "not_json", "no_text", "not_text"]


@dataclass(frozen=True)
class Raw:
    """A text and the record that it was in."""

    text: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Bad:
    """A document that cannot be used; `what` names the place."""

    reason: Reason
    what: str


def read_jsonl(shard: Shard, config: DataConfig) -> Iterator[Raw | Bad]:
    limit = _MOST_BYTES * config.max_document_chars + _CHUNK_BYTES  # the other fields need room too
    try:
        with shard.open() as file:
            beside = _beside(shard, config, limit)
            for number, line in _lines(file, limit):
                where = f"{shard}:{number}"
                if line is None:
                    yield Bad("too_long", f"{where}: a line of more than {limit} bytes; see data.max_document_chars")
                elif line.strip():
                    yield _from_json(line, next(beside, None), config, where)
                    continue
                next(beside, None)
    except OSError as error:
        yield _unreadable(shard, error)


def _beside(shard: Shard, config: DataConfig, limit: int) -> Iterator[bytes | None]:
    """The lines of the file with more fields, one for each of the shard's; those of a shard without one say nothing."""
    if not config.beside:
        yield from repeat(b"{}")
    with shard.beside(config.beside).open() as file:
        for _, line in _lines(file, limit):
            yield line


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


def _from_json(line: bytes, beside: bytes | None, config: DataConfig, where: str) -> Raw | Bad:
    if beside is None:
        return Bad("unreadable", f"{where}: the file beside it (data.beside) has no such line")
    try:
        record = json.loads(line.decode("utf-8"))
        if config.beside and isinstance(record, dict):
            record = {**json.loads(beside.decode("utf-8")), **record}
    except UnicodeDecodeError as error:
        return _not_utf8(where, error)
    except (ValueError, TypeError, RecursionError) as error:  # also numbers too long and nesting too deep
        return Bad("not_json", f"{where}: not JSON ({error})")
    return text_of(record, config, where)


def read_text(shard: Shard, config: DataConfig) -> Iterator[Raw | Bad]:
    limit = 4 * config.max_document_chars  # bytes: no character has more in UTF-8
    try:
        with shard.open() as file:
            content = file.read(limit + len(_BYTE_ORDER_MARK) + 1).removeprefix(_BYTE_ORDER_MARK)
        text = content.decode("utf-8") if len(content) <= limit else None
    except OSError as error:
        yield _unreadable(shard, error)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield _not_utf8(f"{shard}:{line}", error)
    else:
        yield _usable(text, {}, config, str(shard))


def read_parquet(shard: Shard, config: DataConfig) -> Iterator[Raw | Bad]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    name = config.text_field
    try:
        with shard.open(decompress=False) as opened, ParquetFile(opened) as file:
            if name not in (columns := file.schema_arrow.names):
                yield _no_such_field(str(shard), name, columns)
                return
            wanted = {name, *(rule.field.partition(".")[0] for rule in config.keep.fields)}
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[each for each in columns if each in wanted]):
                for place in range(batch.num_rows):
                    where = f"{shard}:row {row}"
                    try:
                        record = {key: batch.column(key)[place].as_py() for key in batch.schema.names}
                        yield text_of(record, config, where)
                    except UnicodeDecodeError as error:
                        yield _not_utf8(where, error)
                    row += 1
    except (ArrowException, OSError) as error:
        yield Bad("unreadable", f"{shard}: not a readable Parquet file ({one_line(str(error))})")


def _packed(*endings: str) -> list[str]:
    return [ending + packed for ending in endings for packed in COMPRESSED]


READERS: dict[str, tuple[tuple[str, ...], Callable[[Shard, DataConfig], Iterator[Raw | Bad]]]] = {
    "jsonl": ((".jsonl", *_packed(".jsonl", ".json")), read_jsonl),
    "text": ((".txt", *_packed(".txt")), read_text),
    "parquet": ((".parquet",), read_parquet),
}
"""Source -> what its files' names end in, and how one is read."""


def text_of(record: Any, config: DataConfig, where: str) -> Raw | Bad:
    """The text of a record, if it has one that can be used."""
    name = config.text_field
    if not isinstance(record, dict):
        kind = type(record).__name__
        return Bad("no_text", f"{where}: expected an object with the text under {name!r}, not {kind}")
    if name not in record:
        return _no_such_field(where, name, list(record))
    text = record[name]
    if not isinstance(text, str):
        return Bad("no_text", f"{where}: {name!r} must be a text, not {type(text).__name__}")
    return _usable(text, record, config, where)


def _usable(text: str | None, record: Mapping[str, Any], config: DataConfig, where: str) -> Raw | Bad:
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
    return Raw(text, record)


def _unreadable(shard: Shard, error: OSError) -> Bad:
    return Bad("unreadable", f"{error.filename or shard}: cannot be read ({error.strerror or one_line(str(error))})")


def _not_utf8(where: str, error: UnicodeDecodeError) -> Bad:
    what = f"not UTF-8 ({error.reason} at byte {error.start}): convert it, for instance with iconv"
    return Bad("not_utf8", f"{where}: {what}")


def _no_such_field(where: str, name: str, found: list[str]) -> Bad:
    names = one_line(", ".join(map(str, found[:20]))) or "(none)"
    return Bad("no_text", f"{where}: no {name!r}; set data.text_field to one of: {names[:200]}")
