"""The section `data` of a configuration: where documents are, which of them are used, and how each is split. Importable
without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from preceptor_trainer.section import DataSource, NonNegative, Positive, Section, Share, Weight


class FieldRule(Section):
    """A condition on another field of a document's record; a record without the field does not meet it."""

    field: Annotated[str, Field(min_length=1)]
    """Names and places joined by dots: `meta.lang`, `signals.toxicity.0.2`. A text on the way is read as JSON."""
    at_least: float | None = None
    at_most: float | None = None
    one_of: Annotated[tuple[str | int | bool, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.at_least is None and self.at_most is None and self.one_of is None:
            raise ValueError(f"the rule for {self.field} asks nothing: set at_least, at_most or one_of")
        return self


class Keep(Section):
    """Which documents are used: those that meet all of it."""

    min_chars: NonNegative = 0
    max_chars: Positive | None = None
    min_words: NonNegative = 0
    letters: Share = 0.0
    """Least share of letters among what is no white space: tables, code and rubbish have few."""
    fields: tuple[FieldRule, ...] = ()


class Source(Section):
    """Where documents are."""

    source: DataSource = "jsonl"
    path: str = ""
    """A file or a folder, here or behind a URL that fsspec opens (`s3://`, `gs://`, `hf://`, `https://`); for
    `huggingface` a data set's name or folder."""
    split: str = "train"
    """`huggingface` only."""
    text_field: str = "text"
    """The JSON key or column that holds a document's text."""
    beside: dict[str, str] = Field(default_factory=dict)
    """`jsonl` only: more fields of the n-th document are in the n-th line of another file, whose name is the shard's
    with these parts replaced (`{/documents/: /quality_signals/}`)."""
    keep: Keep = Keep()

    @model_validator(mode="after")
    def _only_lines_have_others_beside_them(self) -> Self:
        if self.beside and self.source != "jsonl":
            raise ValueError(f"beside is for jsonl, and the source is {self.source}")
        return self

    @property
    def place(self) -> tuple[str, ...]:
        """Tells one place from another."""
        return (self.source, self.path, *([self.split] if self.source == "huggingface" else []))


class WeightedSource(Source):
    """A source of a mixture."""

    weight: Weight = 1.0
    """Its share of the documents is this over the sum of all weights."""


class DataConfig(Source):
    """Documents, and how each is split into a prefix and a suffix."""

    mixture: tuple[WeightedSource, ...] = ()
    """Several sources instead of one, document by document in the proportion of their weights; each begins again when
    it is through, so that a mixture has no end."""
    prefix_tokens: Positive = 1920
    """Longest prefix; what comes before is cut off."""
    min_prefix_tokens: Positive = 1
    suffix_tokens: Positive = 128
    epochs: Positive | None = None
    """Passes over the documents, each with new splits; None repeats until the steps are done."""
    shuffle_shards: bool = False
    """Read the files (shards) of each pass in another order."""
    shuffle_buffer: NonNegative = 0
    """Documents held for shuffling; 0 keeps their order."""
    readers: Positive = 1
    """Shards read at the same time, each reader with shards of its own: for a remote or compressed source."""
    normalize: Literal["none", "NFC", "NFKC"] = "none"
    """Unicode form; with one, line ends become \\n and other control characters go too."""
    deduplicate: bool = False
    """Use a text once a pass over its source. Takes about 100 bytes of memory a document."""
    seed: int = 0
    """Of the splits and the shuffling alone, so that two runs with other seeds may see the same windows."""
    max_document_chars: Positive = 10_000_000
    """A longer document is a bad one: a whole file in one line, most likely."""
    bad_documents: Literal["stop", "skip"] = "stop"
    """What to do about a document that cannot be read: end the run, or count it and go on."""

    @property
    def name(self) -> str:
        """For messages."""
        return self.path or ", ".join(source.path for source in self.mixture)

    @property
    def places(self) -> set[tuple[str, ...]]:
        """Where all of its documents are."""
        return {source.place for source in self.mixture or (self,)}

    def only(self, source: Source) -> DataConfig:
        """One source of the mixture, read as the mixture is."""
        own = {name: getattr(source, name) for name in Source.model_fields}
        return self.model_copy(update={"mixture": (), **own})

    def in_order(self, **place: Any) -> DataConfig:
        """One pass in the documents' own order; over those of `place`, where it is given."""
        alone: dict[str, Any] = {"mixture": ()} if place else {}
        once = {"epochs": 1, "shuffle_buffer": 0, "shuffle_shards": False}
        return self.model_copy(update={**once, **alone, **place})

    @model_validator(mode="after")
    def _prefix_sizes_fit(self) -> Self:
        if self.min_prefix_tokens > self.prefix_tokens:
            raise ValueError(
                f"min_prefix_tokens ({self.min_prefix_tokens}) is above prefix_tokens ({self.prefix_tokens})"
            )
        return self

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if bool(self.path) == bool(self.mixture):
            raise ValueError("set path, or mixture for several sources, and not both")
        if any(not source.path for source in self.mixture):
            raise ValueError("every source of the mixture needs a path")
        if self.mixture and self.epochs is not None:
            raise ValueError("a mixture has no end, as each source begins again: leave epochs out")
        return self
