from __future__ import annotations

import bz2
import gzip
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.documents import stream_documents
from preceptor_trainer.data.shards import DocumentError


def texts(**settings: object) -> list[str]:
    return [document.text for document in stream_documents(DataConfig.model_validate(settings))]


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return bytes(sink.getvalue())


def test_compressed_shards_are_read_to_the_end_of_their_last_frame(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(zstd(lines("a1")) + zstd(lines("a2")))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(lines("b1")) + gzip.compress(lines("b2")))
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(lines("c")))
    (tmp_path / "d.jsonl").write_bytes(lines("d"))
    (tmp_path / "info.json").write_text("{}")
    assert texts(path=str(tmp_path)) == ["a1", "a2", "b1", "b2", "c", "d"]
    assert texts(path=str(tmp_path / "a.jsonl.zst")) == ["a1", "a2"]


@pytest.mark.parametrize(("ending", "pack"), [("zst", zstd), ("gz", gzip.compress), ("bz2", bz2.compress)])
def test_a_compressed_shard_that_breaks_off_or_is_none_is_named(ending: str, pack: object, tmp_path: Path) -> None:
    whole = pack(lines(*(f"{number} {number * 7919}" for number in range(5000))))  # type: ignore[operator]
    broken = tmp_path / f"a.jsonl.{ending}"
    for content in (whole[: len(whole) // 2], b"no archive at all"):
        broken.write_bytes(content)
        with pytest.raises(DocumentError, match=rf"a\.jsonl\.{ending}: cannot be read \(.+\)"):
            texts(path=str(tmp_path))


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()


def test_shards_are_read_over_http(website: tuple[str, Path]) -> None:
    url, folder = website
    (folder / "a.jsonl.zst").write_bytes(zstd(lines("one", "two")))
    pq.write_table(pa.table({"text": ["three"]}), folder / "b.parquet")
    assert texts(path=f"{url}/a.jsonl.zst") == ["one", "two"]
    assert texts(source="parquet", path=f"{url}/b.parquet") == ["three"]
    with pytest.raises(DocumentError, match=r"missing\.jsonl: .*set data\.path|missing\.jsonl: cannot be read"):
        texts(path=f"{url}/missing.jsonl")


def test_a_remote_folder_is_read_in_the_order_of_its_names() -> None:
    system = fsspec.filesystem("memory")
    for name, content in (("b.jsonl", lines("b")), ("deep/c.jsonl.zst", zstd(lines("c"))), ("a.jsonl", lines("a"))):
        system.pipe(f"/corpus/{name}", content)
    assert texts(path="memory://corpus") == ["a", "b", "c"]
    with pytest.raises(DocumentError, match=r"holds no \.txt file"):
        texts(source="text", path="memory://corpus")


def test_a_remote_shard_that_breaks_off_ends_the_run_whatever_is_done_about_bad_documents() -> None:
    fsspec.filesystem("memory").pipe("/broken/a.jsonl.zst", zstd(lines("a" * 10_000))[:-20])
    with pytest.raises(DocumentError, match=r"a\.jsonl\.zst: cannot be read"):
        texts(path="memory://broken", bad_documents="skip")


def test_a_protocol_whose_package_is_missing_says_which_one_to_install() -> None:
    with pytest.raises(DocumentError, match=r"cannot be listed \(.*(install|Protocol not known).*\); set data\.path"):
        texts(path="nosuch://bucket/corpus")


@pytest.mark.parametrize("readers", [1, 3, 9])
def test_readers_share_the_shards_and_each_document_comes_once(readers: int, tmp_path: Path) -> None:
    expected = []
    for shard in range(5):
        own = [f"{shard}-{number}" for number in range(shard * 40)]
        (tmp_path / f"{shard}.jsonl").write_bytes(lines(*own))
        expected += own
    once = texts(path=str(tmp_path), readers=readers)
    assert sorted(once) == sorted(expected)
    assert texts(path=str(tmp_path), readers=readers) == once
    assert (once == expected) == (readers == 1)


def test_shards_come_in_another_order_each_pass_and_in_the_same_for_the_same_pass(tmp_path: Path) -> None:
    for shard in range(8):
        (tmp_path / f"{shard}.jsonl").write_bytes(lines(str(shard)))
    config = DataConfig(path=str(tmp_path), shuffle_shards=True)
    passes = [[document.text for document in stream_documents(config, epoch)] for epoch in (0, 1, 0)]
    assert passes[0] != passes[1]
    assert passes[0] == passes[2]
    assert sorted(passes[0]) == sorted(passes[1]) == [str(shard) for shard in range(8)]


def test_a_data_set_of_several_shards_is_read_by_several_readers(tmp_path: Path) -> None:
    for shard in range(3):
        (tmp_path / f"{shard}.jsonl").write_bytes(lines(f"{shard}a", f"{shard}b"))
    source: dict[str, object] = {"source": "huggingface", "path": str(tmp_path)}
    assert sorted(texts(**source, readers=2)) == sorted(texts(**source))
    assert sorted(texts(**source, shuffle_shards=True)) == sorted(texts(**source))
