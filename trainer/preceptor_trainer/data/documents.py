"""Streams of documents from files and data sets.

In: a `DataConfig`. Out: an iterator over `Document`s in a fixed order, one at a time: a corpus never has to fit in
memory. Guarantees: the n-th document is the same on every pass. Raises `DocumentError`, which names file and line (or
row), for what cannot be read: malformed JSON, a missing text, bytes that are not UTF-8, a source without any
document. May wait for the disk and, for Hugging Face data sets that are not on this machine, for the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor_trainer.config import DataConfig
from preceptor_trainer.errors import TrainError


class DocumentError(TrainError):
    """A source of documents that cannot be used, with the place: `file:line: what is wrong`."""


@dataclass(frozen=True)
class Document:
    """A text and its place in its source, counted from 0."""

    index: int
    text: str


def stream_documents(config: DataConfig) -> Iterator[Document]:
    """One pass over the documents of `config`, in order."""
    texts = _SOURCES[config.source](config)
    index = -1
    for index, text in enumerate(texts):
        yield Document(index, text)
    if index < 0:
        raise DocumentError(f"{config.path}: holds no document")


def _jsonl(config: DataConfig) -> Iterator[str]:
    for path in _files(config.path, ".jsonl"):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.isspace():
                    continue
                where = f"{path}:{number}"
                try:
                    record = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise DocumentError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
                except (ValueError, RecursionError) as error:  # also numbers too long and nesting too deep
                    raise DocumentError(f"{where}: not JSON ({error})") from None
                yield _text_of(record, config.text_field, where)


def _text(config: DataConfig) -> Iterator[str]:
    for path in _files(config.path, ".txt"):
        content = path.read_bytes()
        try:
            yield content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise DocumentError(f"{path}:{line}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _parquet(config: DataConfig) -> Iterator[str]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    for path in _files(config.path, ".parquet"):
        try:
            with ParquetFile(path) as file:
                columns = file.schema_arrow.names
                if config.text_field not in columns:
                    raise DocumentError(_no_such_field(str(path), config.text_field, columns))
                row = 0
                for batch in file.iter_batches(batch_size=1024, columns=[config.text_field]):
                    for value in batch.column(0).to_pylist():
                        yield _text_of({config.text_field: value}, config.text_field, f"{path}:row {row}")
                        row += 1
        except ArrowException as error:
            raise DocumentError(f"{path}: not a readable Parquet file ({error})") from None


def _huggingface(config: DataConfig) -> Iterator[str]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        rows = load_dataset(config.path, split=config.split, streaming=True)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        raise DocumentError(f"{config.path}: cannot open the data set ({error})") from None
    for row, record in enumerate(rows):
        yield _text_of(record, config.text_field, f"{config.path}:row {row}")


_SOURCES: dict[str, Callable[[DataConfig], Iterator[str]]] = {
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
    files = sorted(path.rglob(f"*{suffix}"))
    if not files:
        raise DocumentError(f"{path}: the folder holds no {suffix} file; set data.path or data.source")
    return files


def _text_of(record: Any, field: str, where: str) -> str:
    if not isinstance(record, dict):
        raise DocumentError(f"{where}: expected an object with the text under {field!r}, not {type(record).__name__}")
    if field not in record:
        raise DocumentError(_no_such_field(where, field, list(record)))
    text = record[field]
    if not isinstance(text, str):
        raise DocumentError(f"{where}: {field!r} must be a text, not {type(text).__name__}")
    return text


def _no_such_field(where: str, field: str, found: list[str]) -> str:
    return f"{where}: no {field!r}; set data.text_field to one of: {', '.join(map(str, found)) or '(none)'}"
