"""Hugging Face data sets as a source of documents: by name or folder, streamed.

In: a `DataConfig`. Out: as in `formats`, one iterator a reader, each with shards of its own. May wait for the network
where the data set is not on this machine. Raises `DocumentError`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.formats import Bad, Raw, text_of
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.errors import one_line


def dataset_readers(config: DataConfig, epoch: int) -> list[Iterator[Raw | Bad]]:
    """As many as `config.readers` asks for, or as there are shards."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        rows = load_dataset(config.path, split=config.split, streaming=True)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        raise DocumentError(
            f"{config.path}: cannot open the data set ({one_line(str(error))}); set data.path or data.split"
        ) from None
    if config.shuffle_shards:
        order = random.Random(f"shards/{config.seed}/{epoch}").getrandbits(32)
        rows = rows.shuffle(seed=order, buffer_size=1)  # which leaves the order within a shard
    count = min(config.readers, rows.num_shards)
    if count == 1:
        return [_rows(rows, config, config.path)]
    return [_rows(rows.shard(count, place), config, f"{config.path}:reader {place}") for place in range(count)]


def _rows(rows: Any, config: DataConfig, where: str) -> Iterator[Raw | Bad]:
    row = 0
    try:
        for record in rows:
            yield text_of(record, config, f"{where}:row {row}")
            row += 1
    except Exception as error:  # every format and every transport has its own, and there is no next row after it
        raise DocumentError(f"{where}:row {row}: cannot be read ({one_line(str(error))})") from error
