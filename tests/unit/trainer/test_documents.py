from __future__ import annotations

import errno
import json
import os
import re
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import PassedOver, stream_documents
from preceptor_trainer.data.shards import DocumentError


def texts(source: str, path: Path, passed_over: PassedOver | None = None, **settings: str | int) -> list[str]:
    config = DataConfig.model_validate({"source": source, "path": str(path), **settings})
    documents = list(stream_documents(config, passed_over=passed_over))
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
    passed_over = PassedOver()
    kept = texts("jsonl", file, passed_over, bad_documents="skip")
    assert kept[0] == "good"
    "".join(kept).encode("utf-8")
    outcome = ""
    try:
        assert texts("jsonl", file) == kept
    except DocumentError as error:
        outcome = str(error)
    assert bool(outcome) == bool(passed_over.counts)
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
        (b'{"text": "ab\\ud800c"}', r"a\.jsonl:2: \\ud800 at character 2 is half of a character"),
        (b'{"text": "a\\u0000"}', r"a\.jsonl:2: a NUL at character 1"),
        (b'{"text": "' + b"x" * 1001 + b'"}', r"a\.jsonl:2: longer than data\.max_document_chars=1000"),
        ('{"text": "x"}'.encode("utf-16"), r"a\.jsonl:2: not UTF-8 .*convert it"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(DocumentError, match=message + ".*; to pass over such documents set data.bad_documents=skip"):
        texts("jsonl", file, max_document_chars=1000)
    passed_over = PassedOver()
    assert texts("jsonl", file, passed_over, max_document_chars=1000, bad_documents="skip") == ["good"]
    assert passed_over.counts.total() == 1


def test_an_error_is_one_line_of_bounded_length_whatever_the_document_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({f"\n{number}": "x" for number in range(10_000)}))
    with pytest.raises(DocumentError) as caught:
        texts("jsonl", tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_limit_counts_characters_however_many_bytes_they_take(tmp_path: Path) -> None:
    text = "\U0001f600" * 1000
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (tmp_path / "a.txt").write_text("\ufeff" + text, encoding="utf-8")
    for source in ("jsonl", "text"):
        assert texts(source, tmp_path, max_document_chars=1000) == [text]
        with pytest.raises(DocumentError, match=r"longer than data\.max_document_chars=999"):
            texts(source, tmp_path, max_document_chars=999)


def test_what_is_over_the_limit_is_never_held_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        file.seek(64 * 1024 * 1024, os.SEEK_CUR)  # a hole: it takes no disk
        file.write(b'"}\n{"text": "good"}\n')
    (tmp_path / "a.txt").write_text("good")
    with (tmp_path / "b.txt").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    for source in ("jsonl", "text"):
        passed_over = PassedOver()
        tracemalloc.start()
        try:
            assert texts(source, tmp_path, passed_over, max_document_chars=1000, bad_documents="skip") == ["good"]
            assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
        finally:
            tracemalloc.stop()
        assert passed_over.counts == {"too_long": 1}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_files_written_on_windows_are_read_as_any_other(tmp_path: Path, mark: bytes, end: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(mark + end.join([b'{"text": "one"}', b"", b'{"text": "two"}', b""]))
    (tmp_path / "a.txt").write_bytes(mark + b"one")
    assert texts("jsonl", tmp_path) == ["one", "two"]
    assert texts("text", tmp_path) == ["one"]


def test_bad_documents_are_passed_over_counted_by_reason_and_the_first_few_told(tmp_path: Path) -> None:
    good, odd = b'{"text": "good"}\n', [b"{\n", b'{"text": "\xff"}\n', b'{"text": null}\n', b'{"text": "\\udfff"}\n']
    (tmp_path / "a.jsonl").write_bytes(good + b"".join(odd) * 2 + good)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    told: list[str] = []
    passed_over = PassedOver(told.append)
    assert texts("jsonl", tmp_path, passed_over, bad_documents="skip") == ["good", "good"]
    assert passed_over.counts == {"not_json": 2, "not_utf8": 2, "no_text": 2, "not_text": 2, "unreadable": 1}
    assert [re.sub(r".*/(\S+): .*", r"\1", line) for line in told] == [f"a.jsonl:{line}" for line in range(2, 7)]
    assert told[-1].endswith("others will only be counted")


def test_a_source_of_bad_documents_alone_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n' * 3)
    with pytest.raises(DocumentError, match=r"no document that can be used; the first: .*:1: no 'text'.* one of: body"):
        texts("jsonl", tmp_path, bad_documents="skip")


@pytest.mark.parametrize(("source", "suffix"), [("jsonl", "jsonl"), ("text", "txt"), ("parquet", "parquet")])
def test_a_file_that_cannot_be_opened_is_named_and_a_folder_is_no_file(
    source: str, suffix: str, tmp_path: Path
) -> None:
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(DocumentError, match=f"holds no .{suffix} file"):
        texts(source, tmp_path)
    (tmp_path / f"a.{suffix}").symlink_to(tmp_path / "gone")
    with pytest.raises(DocumentError, match=rf"a\.{suffix}: .*(No such file|not a readable)"):
        texts(source, tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "closed").mkdir()
    list_folder = os.scandir

    def refuse(path: str) -> object:  # for root every folder is open
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DocumentError, match=r"closed: cannot be listed \(Permission denied\); make it readable"):
        texts("jsonl", tmp_path, bad_documents="skip")


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


def test_a_parquet_file_that_is_damaged_or_cut_short_is_named_and_the_next_one_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"t{number}" for number in range(3000)]}), tmp_path / "c.parquet")
    whole = (tmp_path / "c.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.parquet").write_bytes(whole[:100] + b"\xff" * 60 + whole[160:])
    passed_over = PassedOver()
    kept = texts("parquet", tmp_path, passed_over, bad_documents="skip")
    assert kept[-3000:] == [f"t{number}" for number in range(3000)]
    assert passed_over.counts == {"unreadable": 2}


def test_a_column_that_lies_about_its_encoding_is_told_by_row(tmp_path: Path) -> None:
    lying = pa.Array.from_buffers(pa.string(), 3, pa.array([b"one", b"\xff", b"two"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": lying}), tmp_path / "a.parquet")
    passed_over = PassedOver()
    assert texts("parquet", tmp_path, passed_over, bad_documents="skip") == ["one", "two"]
    assert passed_over.counts == {"not_utf8": 1}
    with pytest.raises(DocumentError, match=r"a\.parquet:row 1: not UTF-8"):
        texts("parquet", tmp_path)


def test_a_null_in_a_column_is_named_with_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(DocumentError, match=r"a\.parquet:row 1: 'text' must be a text, not NoneType"):
        texts("parquet", tmp_path)


def test_a_data_set_that_breaks_off_is_told_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(DocumentError, match=r"row \d+: cannot be read"):
        texts("huggingface", tmp_path, bad_documents="skip")
    with pytest.raises(DocumentError, match=r"cannot open the data set .*; set data\.path or data\.split"):
        texts("huggingface", tmp_path, split="nope")


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
