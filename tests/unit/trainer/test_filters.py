from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preceptor_trainer.data.config import DataConfig, FieldRule, Keep
from preceptor_trainer.data.documents import PassedOver, stream_documents
from preceptor_trainer.data.filters import Seen, field_of, kept, letters, meets, normalized
from preceptor_trainer.data.shards import DocumentError

RED_PAJAMA = {
    "raw_content": "some text",
    "quality_signals": json.dumps({"rps_doc_ldnoobw_words": [[0, 9, 3.0]], "rps_doc_ut1_blacklist": [[0, 9, None]]}),
}


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_normal_form_stays_as_it_is(text: str) -> None:
    for form in ("NFC", "NFKC"):
        once = normalized(text, form)
        assert normalized(once, form) == once
        assert not any(unicodedata.category(each) == "Cc" and each not in "\t\n" for each in once)
    assert normalized(text, "none") == text


def test_a_normal_form_has_one_kind_of_line_end_and_no_blanks_at_the_end_of_a_line() -> None:
    assert normalized("\ufeffe\u0301\u200b a \t\r\nb\x00\u2028\n\n\n\nc\r", "NFC") == "\u00e9 a\nb\n\nc"
    assert normalized("\ufb01x\u00b2", "NFKC") == "fix2"


def test_a_document_is_kept_if_it_meets_everything_that_is_asked() -> None:
    keep = Keep(min_chars=5, max_chars=20, min_words=2, letters=0.5)
    assert kept("some words", {}, keep)
    assert not kept("a b", {}, keep)
    assert not kept("word " * 10, {}, keep)
    assert not kept("oneword", {}, keep)
    assert not kept("1234 5678 a", {}, keep)
    assert kept("", {}, Keep())


def test_letters_are_counted_in_any_script() -> None:
    assert letters("हिन्दी कहानी") == 1.0
    assert letters("a1 !b") == 0.5
    assert letters(" \n") == 0.0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("quality_signals.rps_doc_ldnoobw_words.0.2", 3.0),
        ("quality_signals.rps_doc_ldnoobw_words.-1.-1", 3.0),
        ("quality_signals.rps_doc_ut1_blacklist.0.2", None),
        ("quality_signals.none_such.0.2", None),
        ("quality_signals.rps_doc_ldnoobw_words.7", None),
        ("raw_content.words", None),
        ("raw_content", "some text"),
    ],
)
def test_a_field_is_found_through_objects_lists_and_json_in_texts(path: str, value: Any) -> None:
    assert field_of(RED_PAJAMA, path) == value


def test_a_rule_wants_a_number_within_its_bounds_or_one_of_its_values() -> None:
    record = {"score": 2, "lang": "en", "flag": True, "nan": float("nan")}
    assert meets(record, FieldRule(field="score", at_least=2, at_most=2))
    assert not meets(record, FieldRule(field="score", at_least=2.5))
    assert not meets(record, FieldRule(field="score", at_most=1))
    assert not meets(record, FieldRule(field="missing", at_most=1))
    assert not meets(record, FieldRule(field="lang", at_most=1))
    assert not meets(record, FieldRule(field="nan", at_least=0))
    assert meets(record, FieldRule(field="lang", one_of=("de", "en")))
    assert not meets(record, FieldRule(field="flag", one_of=(1,)))
    assert meets(record, FieldRule(field="flag", one_of=(True,)))


def test_a_rule_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="the rule for score asks nothing: set at_least, at_most or one_of"):
        FieldRule(field="score")


def test_a_text_was_seen_before_whatever_its_case_and_white_space() -> None:
    seen = Seen()
    assert [seen.add(text) for text in ("One  text", "one text\n", "another", "One text")] == [True, False, True, False]


def test_what_is_not_wanted_is_left_out_and_counted_and_documents_are_numbered_without_it(tmp_path: Path) -> None:
    rows = [("first", 1), ("second", 0), ("FIRST", 1), ("th\u00edrd", 1)]
    pq.write_table(
        pa.table({"text": [text for text, _ in rows], "meta": [{"good": good} for _, good in rows]}),
        tmp_path / "a.parquet",
    )
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text, "meta": {"good": good}}) + "\n" for text, good in rows)
    )
    for source in ("parquet", "jsonl"):
        config = DataConfig.model_validate(
            {
                "source": source,
                "path": str(tmp_path),
                "deduplicate": True,
                "keep": {"fields": [{"field": "meta.good", "at_least": 1}]},
            }
        )
        passed_over = PassedOver()
        documents = [(each.index, each.text) for each in stream_documents(config, passed_over=passed_over)]
        assert documents == [(0, "first"), (1, "th\u00edrd")]
        assert passed_over.figures == {"documents_filtered": 1, "documents_duplicate": 1}


def test_a_source_of_which_nothing_is_wanted_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 3)
    config = DataConfig(path=str(tmp_path), keep=Keep(min_chars=2))
    with pytest.raises(DocumentError, match=r"holds no document that data\.keep wants, of 3"):
        list(stream_documents(config))


def test_fields_from_a_file_beside_the_shard_decide_what_is_kept(tmp_path: Path) -> None:
    for folder in ("documents", "quality_signals"):
        (tmp_path / folder).mkdir()
    documents = [f"text {number}" for number in range(4)]
    signals = [{"quality_signals": json.dumps({"words": [[0, 9, float(number % 2)]]})} for number in range(4)]
    (tmp_path / "documents" / "a.json.gz").write_bytes(
        gzip.compress("".join(json.dumps({"raw_content": text}) + "\n" for text in documents).encode())
    )
    beside = tmp_path / "quality_signals" / "a.signals.json.gz"
    beside.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in signals).encode()))
    config = DataConfig.model_validate(
        {
            "path": str(tmp_path / "documents"),
            "text_field": "raw_content",
            "beside": {"/documents/": "/quality_signals/", ".json.gz": ".signals.json.gz"},
            "keep": {"fields": [{"field": "quality_signals.words.0.2", "at_least": 1}]},
        }
    )
    assert [document.text for document in stream_documents(config)] == ["text 1", "text 3"]
    beside.write_bytes(gzip.compress(json.dumps(signals[1]).encode() + b"\n"))
    with pytest.raises(DocumentError, match=r"a\.json\.gz:2: the file beside it \(data\.beside\) has no such line"):
        list(stream_documents(config))
    beside.unlink()
    with pytest.raises(DocumentError, match=r"a\.signals\.json\.gz: cannot be read"):
        list(stream_documents(config))
