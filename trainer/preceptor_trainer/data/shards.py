"""Where the bytes of documents come from: files and folders, here or behind a URL, compressed or not.

In: a location and what its files' names end in. Out: shards in the order of their names, each opened as a stream of
bytes, decompressed. Guarantees: a compressed file that breaks off is an error, and one of several frames is read to its
end. May wait for the disk or the network. A place that cannot be listed raises `DocumentError`. So does a remote file
that cannot be read, always: passing over the rest of it because of the network would give other documents next time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn, cast

from preceptor_trainer.errors import TrainError, one_line

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""What a compressed file's name ends in -> its format."""


class DocumentError(TrainError):
    """A source of documents that cannot be used, with the place: `file:line: what is wrong`."""


@dataclass(frozen=True)
class Shard:
    """A file. `name` is its path or URL; `system` is fsspec's, None for a file on this machine."""

    name: str
    system: Any = None

    def __str__(self) -> str:
        return self.name

    def beside(self, replaced: Mapping[str, str]) -> Shard:
        """The file of that name with some parts replaced."""
        name = self.name
        for part, other in replaced.items():
            name = name.replace(part, other)
        if name == self.name:
            raise DocumentError(f"{name}: data.beside replaces no part of this name")
        return Shard(name, self.system)

    @contextmanager
    def open(self, *, decompress: bool = True) -> Iterator[BinaryIO]:
        """Its bytes. Raises OSError for a file of this machine, `DocumentError` for a remote one."""
        codec = COMPRESSED.get(Path(self.name).suffix) if decompress else None
        if self.system is None:
            with Path(self.name).open("rb") as file:
                yield _decompressed(file, codec)
            return
        try:
            with self.system.open(self.name, "rb") as file:
                yield _decompressed(file, codec)
        except DocumentError:
            raise
        except Exception as error:  # every transport has its own
            raise DocumentError(f"{self.name}: cannot be read ({one_line(str(error))})") from error


def find_shards(location: str, endings: Sequence[str]) -> list[Shard]:
    """The file itself, or every file below the folder whose name ends so, sorted."""
    shards = _remote(location, endings) if "://" in location else _local(location, endings)
    if not shards:
        raise DocumentError(f"{location}: the folder holds no {endings[0]} file; set data.path or data.source")
    return shards


def _local(location: str, endings: Sequence[str]) -> list[Shard]:
    path = Path(location)
    if path.is_file():
        return [Shard(str(path))]
    if not path.is_dir():
        raise DocumentError(f"{path}: no such file or folder; set data.path")
    below = os.walk(path, onerror=_unlistable)  # `rglob` leaves out what it may not list, without a word
    paths = sorted(Path(folder, name) for folder, _, names in below for name in names if name.endswith(tuple(endings)))
    return [Shard(str(each)) for each in paths]


def _remote(location: str, endings: Sequence[str]) -> list[Shard]:
    import fsspec

    try:
        system, root = fsspec.url_to_fs(location)
        if system.isfile(root):
            return [Shard(location, system)]
        return [
            Shard(system.unstrip_protocol(name), system)
            for name in sorted(system.find(root))
            if name.endswith(tuple(endings))
        ]
    except Exception as error:  # every transport has its own; a missing package says which to install
        raise DocumentError(f"{location}: cannot be listed ({one_line(str(error))}); set data.path") from error


def _decompressed(file: IO[bytes], codec: str | None) -> BinaryIO:
    if codec is None:
        return cast(BinaryIO, file)
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), codec))


def _unlistable(error: OSError) -> NoReturn:
    raise DocumentError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable, or set data.path")
