from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from pydantic import ValidationError

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import stream_documents
from preceptor_trainer.data.shards import DocumentError
from preceptor_trainer.data.stream import Position, WindowStream
from preceptor_trainer.data.windows import Window


def test_a_mixture_gives_each_source_its_share_and_begins_a_short_one_again(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [f"a{number}" for number in range(300)])
    write(tmp_path / "b.jsonl", ["b0", "b1"])
    config = mixture(tmp_path, a=3.0, b=1.0)
    documents = list(islice(stream_documents(config), 40))
    assert [document.index for document in documents] == list(range(40))
    by_source = {name: [each.text for each in documents if each.text[0] == name] for name in "ab"}
    assert by_source == {"a": [f"a{number}" for number in range(30)], "b": ["b0", "b1"] * 5}


def test_a_mixture_that_is_resumed_anywhere_goes_on_as_the_whole_one(tmp_path: Path) -> None:
    for name, length in (("a", 7), ("b", 3), ("c", 5)):
        write(tmp_path / f"{name}.jsonl", [f"{name}{number} some more letters" for number in range(length)])
    config = mixture(tmp_path, a=0.5, b=0.3, c=0.2).model_copy(
        update={"prefix_tokens": 4, "suffix_tokens": 2, "shuffle_buffer": 4, "deduplicate": True, "normalize": "NFC"}
    )

    def windows(start: Position, taken: int) -> list[tuple[Window, Position]]:
        return list(islice(WindowStream(config, lambda text: list(text.encode()), start=start), taken))

    whole = windows(Position(), 60)
    assert len({window.id for window, _ in whole}) == 60
    for at in (1, 2, 13, 40):
        assert windows(whole[at - 1][1], 60 - at) == whole[at:]


def test_a_mixture_without_a_document_that_is_long_enough_ends_with_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ["x"])
    write(tmp_path / "b.jsonl", ["y"])
    with pytest.raises(DocumentError, match=r"a\.jsonl, .*b\.jsonl: no document has \d+ tokens"):
        next(iter(WindowStream(mixture(tmp_path, a=1.0, b=1.0), lambda text: list(text.encode()))))


def test_a_place_is_a_path_or_a_mixture_and_a_mixture_has_no_epochs(tmp_path: Path) -> None:
    source = {"path": "a.jsonl"}
    for settings, message in (
        ({}, "set path, or mixture"),
        ({**source, "mixture": [source]}, "set path, or mixture"),
        ({"mixture": [{"weight": 2.0}]}, "every source of the mixture needs a path"),
        ({"mixture": [source], "epochs": 2}, "a mixture has no end"),
    ):
        with pytest.raises(ValidationError, match=message):
            DataConfig.model_validate(settings)


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def mixture(folder: Path, **weights: float) -> DataConfig:
    sources = [{"path": str(folder / f"{name}.jsonl"), "weight": weight} for name, weight in weights.items()]
    return DataConfig.model_validate({"mixture": sources})
