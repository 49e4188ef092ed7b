"""Streams of documents from files, folders and data sets, alone or mixed.

    shards -> readers -> usable? -> normal form -> kept? -> seen before? -> documents
                           Bad                    filtered    duplicate

In: a `DataConfig` and the pass (epoch). Out: an iterator over `Document`s in a fixed order, one at a time: a corpus
never has to fit in memory. Guarantees: the n-th document is the same whenever that pass is read, however many readers
are how fast. A document that cannot be used (malformed JSON, no text, bytes that are not UTF-8, over
`max_document_chars`, a file that breaks off) ends the stream with a `DocumentError` that names file and line (or row),
or, with `bad_documents: skip`, is counted in a `PassedOver` and left out, as are those that `keep` and `deduplicate` do
not want. A source that is not there, or holds no document that can be used, is a `DocumentError` always. May wait for
the disk or the network.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, count, starmap

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.datasets import dataset_readers
from preceptor_trainer.data.filters import Seen, kept, normalized
from preceptor_trainer.data.formats import READERS, Bad, Raw
from preceptor_trainer.data.mixture import turns
from preceptor_trainer.data.reading import in_turn
from preceptor_trainer.data.shards import DocumentError, find_shards

_TOLD = 5
"""Bad documents that are said one by one; the others are only counted."""


@dataclass(frozen=True)
class Document:
    """A text and its place in its stream, counted from 0."""

    index: int
    text: str


@dataclass
class PassedOver:
    """What was left out, by reason, on all passes together. `say` is told the first few that could not be used."""

    say: Callable[[str], None] = lambda text: None
    counts: Counter[str] = field(default_factory=Counter)
    _told: int = field(default=0, init=False)

    @property
    def figures(self) -> dict[str, int]:
        """For the run's summary: `documents_<reason>`."""
        return {f"documents_{reason}": count for reason, count in self.counts.items()}

    def add(self, bad: Bad) -> None:
        """One more that cannot be used."""
        self.counts[bad.reason] += 1
        self._told += 1
        if self._told <= _TOLD:
            more = "; others will only be counted" if self._told == _TOLD else ""
            self.say(f"passed over: {bad.what}{more}")


def stream_documents(config: DataConfig, epoch: int = 0, passed_over: PassedOver | None = None) -> Iterator[Document]:
    """The documents of `config` in the order of that pass. Those of a mixture have no end."""
    passed_over = passed_over or PassedOver()
    texts = _mixed(config, passed_over) if config.mixture else _one_pass(config, epoch, passed_over)
    with closing(texts):
        yield from starmap(Document, enumerate(texts))


def _mixed(config: DataConfig, passed_over: PassedOver) -> Generator[str]:
    """Each source again and again, in turn by weight."""

    def again(source: DataConfig) -> Iterator[str]:
        return chain.from_iterable(_one_pass(source, epoch, passed_over) for epoch in count())

    sources = [again(config.only(source)) for source in config.mixture]
    for place in turns([source.weight for source in config.mixture]):
        yield next(sources[place])


def _one_pass(config: DataConfig, epoch: int, passed_over: PassedOver) -> Generator[str]:
    seen = Seen() if config.deduplicate else None
    first: Bad | None = None
    used = left_out = 0
    with closing(in_turn(_readers(config, epoch))) as found_ones:
        for found in found_ones:
            if isinstance(found, Bad):
                if config.bad_documents == "stop":
                    raise DocumentError(f"{found.what}; to pass over such documents set data.bad_documents=skip")
                first = first or found
                passed_over.add(found)
                continue
            text = normalized(found.text, config.normalize)
            if not kept(text, found.record, config.keep):
                passed_over.counts["filtered"] += 1
                left_out += 1
            elif seen and not seen.add(text):
                passed_over.counts["duplicate"] += 1
            else:
                used += 1
                yield text
    if not used:
        why = f" that can be used; the first: {first.what}" if first else ""
        why = f" that data.keep wants, of {left_out}" if left_out else why
        raise DocumentError(f"{config.path}: holds no document{why}")


def _readers(config: DataConfig, epoch: int) -> list[Iterator[Raw | Bad]]:
    if config.source == "huggingface":
        return dataset_readers(config, epoch)
    endings, read = READERS[config.source]
    shards = find_shards(config.path, endings)
    if config.shuffle_shards:
        random.Random(f"shards/{config.seed}/{epoch}").shuffle(shards)
    readers = min(config.readers, len(shards))
    return [chain.from_iterable(read(shard, config) for shard in shards[place::readers]) for place in range(readers)]
