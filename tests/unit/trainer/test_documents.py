from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.config import DataConfig
from preceptor_trainer.data.documents import DocumentError, stream_documents


def texts(source: str, path: Path, **settings: str) -> list[str]:
    config = DataConfig.model_validate({"source": source, "path": str(path), **settings})
    documents = list(stream_documents(config))
    assert [document.index for document in documents] == list(range(len(documents)))
    return [document.text for document in documents]


def test_jsonl_gives_one_document_a_line_and_passes_over_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n\n{"text": "zwei ü", "other": 1}\n', encoding="utf-8")
    assert texts("jsonl", file) == ["one", "zwei ü"]


@given(lines=st.lists(st.binary(max_size=40)))
def test_any_bytes_are_documents_or_a_named_line(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    file.write_bytes(b'{"text": "good"}\n' + b"\n".join(lines))
    outcome = ""
    try:
        assert texts("jsonl", file)[0] == "good"
    except DocumentError as error:
        outcome = str(error)
    assert not outcome or re.match(rf"{file}:\d+: ", outcome)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "below" / "c.txt").write_text("c")
    (tmp_path / "not.md").write_text("not")
    assert texts("text", tmp_path) == ["a", "b", "c"]


def test_parquet_reads_the_named_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": [f"t{i}" for i in range(3000)], "n": range(3000)}), tmp_path / "a.parquet")
    assert texts("parquet", tmp_path, text_field="content") == [f"t{i}" for i in range(3000)]


def test_a_hugging_face_data_set_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert texts("huggingface", tmp_path) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "open', r"a\.jsonl:2: not JSON"),
        (b'{"text": "\xff"}', r"a\.jsonl:2: not UTF-8 .* at byte 10"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", r"a\.jsonl:2: not JSON"),
        (b"[" * 100_000, r"a\.jsonl:2: not JSON"),
        (b'["text"]', r"a\.jsonl:2: expected an object .* not list"),
        (b'{"body": "x"}', r"a\.jsonl:2: no 'text'; set data\.text_field to one of: body"),
        (b'{"text": 3}', r"a\.jsonl:2: 'text' must be a text, not int"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(DocumentError, match=message):
        texts("jsonl", file)


def test_a_text_file_that_is_not_utf8_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("ok\nna\u00efve".encode("latin-1"))
    with pytest.raises(DocumentError, match=r"latin\.txt:2: not UTF-8"):
        texts("text", tmp_path)


def test_a_parquet_file_without_the_column_or_that_is_none_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DocumentError, match=r"a\.parquet: no 'text'; set data\.text_field to one of: content"):
        texts("parquet", tmp_path)
    (tmp_path / "a.parquet").write_text("not parquet")
    with pytest.raises(DocumentError, match=r"a\.parquet: not a readable Parquet file"):
        texts("parquet", tmp_path)


def test_a_null_in_a_column_is_named_with_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(DocumentError, match=r"a\.parquet:row 1: 'text' must be a text, not NoneType"):
        texts("parquet", tmp_path)


@pytest.mark.parametrize("source", ["jsonl", "text", "parquet", "huggingface"])
def test_a_source_that_is_not_there_or_holds_nothing_is_an_error(source: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="missing"):
        texts(source, tmp_path / "missing")
    with pytest.raises(DocumentError):
        texts(source, tmp_path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(DocumentError, match="holds no document"):
        texts("jsonl", tmp_path / "a.jsonl")
