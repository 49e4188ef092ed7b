"""What a user gets wrong, and what is wrong around him, through the real commands: an exit status and one clear line,
never a traceback."""

from __future__ import annotations

import json
import resource
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from preceptor_client.checks import check_queue
from preceptor_client.cli.main import run
from preceptor_client.keys import add_key
from preceptor_client.masking import shown
from preceptor_client.stack import Stack, redis_part, worker_part
from preceptor_services.__main__ import main as serve_main
from preceptor_services.app import judge_app, rewrite_app
from preceptor_services.settings import ServiceSettings
from preceptor_trainer.cli import app
from preceptor_trainer.ledger import read_ledger
from served import Answer, judges_by_a_word, scripted_teacher, served, wait_until_ready
from tiny_run import config_file, tiny_run

BASELINE: dict[str, Any] = {"objective": {"name": "nll"}, "pool": {"rollouts": 0}, "steps": 3}
TEXT = " ".join(f"w{number}" for number in range(2, 26))
OTHER = "odd"
"""A namespace whose keys somebody else uses."""
WORKER = ["worker", "--engine.urls=http://127.0.0.1:9", "--rubrics=nano"]
GOOD = json.dumps({"text": TEXT}).encode() + b"\n"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stderr: str

    @property
    def told(self) -> str:
        """The one line that says why it failed, which is the last."""
        assert "Traceback" not in self.stderr
        [line] = [line for line in self.stderr.splitlines() if line.startswith("preceptor ")]
        assert self.stderr.endswith(f"{line}\n")
        return line


Train = Callable[..., Ended]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """`train("--a.b=c", section={...})`: the command on a run of the next-token baseline with these changes."""
    build = tiny_run(tmp_path, "redis://127.0.0.1:9/0")

    def invoke(*arguments: str, **changes: Any) -> Ended:
        file = config_file(build(**{**BASELINE, **changes}))
        result = CliRunner().invoke(app, ["train", str(file), *arguments])
        return Ended(result.exit_code, result.stderr)

    return invoke


def summary(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "summary.json").read_text())
    return found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"text": "open\n', "documents.jsonl:2: not JSON"),
        (GOOD + b"[" * 100_000, "documents.jsonl:2: not JSON"),
        (GOOD + b'{"text": "na\xefve"}\n', "documents.jsonl:2: not UTF-8"),
        (TEXT.encode("utf-16"), "documents.jsonl:1: not UTF-8"),
        (GOOD + b'{"text": "half \\ud83d"}\n', "documents.jsonl:2: \\ud83d at character 5 is half of a character"),
        (GOOD + b'{"text": "' + b"w2 " * 1000 + b'"}\n', "documents.jsonl:2: longer than data.max_document_chars=2000"),
        (GOOD + b'{"body": "w2"}\n', "documents.jsonl:2: no 'text'; set data.text_field to one of: body"),
        (b"", "documents.jsonl: holds no document"),
        (b'{"text": ""}\n' * 3, "no document has 7 tokens; lower data.suffix_tokens or data.min_prefix_tokens"),
        (b'{"text": "w2 w3 w4"}\n' * 3, "no document has 7 tokens; lower data.suffix_tokens or data.min_prefix_tokens"),
    ],
)
def test_a_document_that_cannot_be_used_ends_a_run_with_its_place(
    train: Train, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "documents.jsonl").write_bytes(content)
    ended = train("--data.max_document_chars=2000")
    assert ended.status == 1
    assert ended.told.startswith(f"preceptor train: {tmp_path}")
    assert message in ended.told


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("parquet", "cut.parquet", "cut.parquet: not a readable Parquet file"),
        ("text", "gone.txt", "gone.txt: cannot be read (No such file or directory)"),
        ("jsonl", "nothing.here", "the folder holds no .jsonl file; set data.path or data.source"),
        ("huggingface", "cut.parquet", "cannot open the data set"),
    ],
)
def test_a_folder_that_cannot_be_used_ends_a_run_with_its_name(
    train: Train, tmp_path: Path, source: str, name: str, message: str
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    if name.startswith("cut"):
        pq.write_table(pa.table({"text": [TEXT] * 100}), folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    else:
        (folder / name).symlink_to(tmp_path / "not there")
    ended = train(data={"source": source, "path": str(folder)})
    assert ended.status == 1
    assert message in ended.told


def test_bad_documents_can_be_passed_over_and_are_counted(train: Train, tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_bytes(
        GOOD * 6 + b"{\n" + GOOD * 5 + b'{"text": "\\udead"}\n{"text": "w2 w3"}\n' + GOOD
    )
    ended = train("--data.bad_documents=skip", "--data.epochs=1")
    assert ended.status == 0, ended.stderr
    assert "passed over: " in ended.stderr
    assert "documents.jsonl:7: not JSON" in ended.stderr
    assert summary(tmp_path)["data"] == {"documents_too_short": 1, "documents_not_json": 1, "documents_not_text": 1}


def test_documents_that_run_out_are_told(train: Train, tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_bytes(GOOD * 5)
    ended = train("--data.epochs=1")
    assert ended.status == 1
    assert "the documents ran out after step 1 of 3: lower steps or raise data.epochs" in ended.told


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--data.pth=x", "data.pth: there is no such key"),
        ("--judge.redis_url", "--judge.redis_url"),
        ("--objective.name=ppo", "objective.name"),
        ("--data.suffix_tokens=0", "data.suffix_tokens"),
        ("--data.min_prefix_tokens=9", "min_prefix_tokens (9) is above prefix_tokens (8)"),
    ],
)
def test_a_wrong_key_of_the_configuration_is_told_before_anything_is_loaded(
    train: Train, tmp_path: Path, argument: str, message: str
) -> None:
    ended = train(argument)
    assert ended.status == 2
    assert ended.stderr.startswith("preceptor train: ")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"- a\n", b"a: [", b"[" * 5000, b"a: \x00", b"out: !!python/name:os"]
)
def test_a_configuration_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "train.yaml"
    file.write_bytes(content)
    result = CliRunner().invoke(app, ["train", str(file)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"preceptor train: {file} ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"rubbish"])
def test_a_policy_that_cannot_be_loaded_is_named(train: Train, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "policy" / name).write_bytes(content)
    ended = train()
    assert ended.status == 1
    assert f"cannot load the policy {tmp_path / 'policy'}: " in ended.told
    assert ended.told.endswith("; set model.path")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_policy_whose_weights_are_no_numbers_is_not_trained(train: Train, tmp_path: Path, value: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    with torch.no_grad():
        model.model.norm.weight[3] = value
    model.save_pretrained(tmp_path / "policy")
    ended = train()
    assert ended.status == 1
    assert "NaN or infinity in model.norm.weight): set model.path" in ended.told


def test_a_run_that_diverges_ends_and_goes_on_from_its_last_checkpoint(train: Train, tmp_path: Path) -> None:
    small, large = "--optimizer.lr=1e-3", "--optimizer.lr=1e12"
    assert train(small, "--checkpoint.every=1").status == 0
    ended = train("--resume", "--steps=6", large, "--checkpoint.every=1")
    assert ended.status == 1
    assert "after update 3, with learning rate 1e+12, the policy gives no numbers any more" in ended.told
    ended = train("--resume", "--steps=6", small)
    assert ended.status == 0, ended.stderr
    assert len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == 6


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("size", "settings"), [(8_000, {}), (60_000, {"checkpoint": {"every": 1}})])
def test_a_disk_that_takes_no_more_ends_a_run_with_what_could_not_be_written(
    train: Train, tmp_path: Path, size: int, settings: dict[str, Any]
) -> None:
    with largest_file(size):
        ended = train(steps=100, **settings)
    assert ended.status == 1
    assert str(tmp_path / "out") in ended.told
    assert "File too large" in ended.told
    assert not list((tmp_path / "out").rglob("*.partial"))


@pytest.mark.parametrize("part", ["redis", "teacher", "judge", "rewrite"])
def test_a_port_that_is_taken_is_told_before_anything_starts(
    tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"redis": 0, "teacher": 0, "judge": 0, "rewrite": 0, part: port}
        options = [f"--{name}-port={number}" for name, number in ports.items()]
        assert run(["up", "--teacher", "any", f"--dir={tmp_path}", *options]) == 1
    stderr = capsys.readouterr().err
    assert stderr == (
        f"preceptor: port {port} on 127.0.0.1 cannot be used (Address already in use): choose another, or 0 for any "
        f"free one (--{part}-port)\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["up", "--nano", "--judge-port=99999"], 2, "65535"),
        (["up", "--teacher=./nowhere"], 1, "--teacher ./nowhere: no such folder"),
    ],
)
def test_what_no_stack_can_have_is_told_at_once(
    command: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == status
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def odd_redis(stack: Stack, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What is wrong with a Redis -> its URL."""
    folder = tmp_path_factory.mktemp("odd")

    def start(name: str, *options: str) -> str:
        part = redis_part(folder / name, name=name)
        return stack.start(replace(part, command=(*part.command, *options))).part.url or ""

    protected = start("protected", "--requirepass", "secret")
    with (
        served(scripted_teacher(judges_by_a_word)) as http,
        old_redis() as old,
        redis.Redis.from_url(redis_url) as other,
    ):
        other.set(f"{OTHER}:cohorts", "not a stream")
        yield {
            "none": "redis://127.0.0.1:9/0",
            "http": http.replace("http://", "redis://"),
            "no password": protected,
            "wrong password": protected.replace("//", "//:hunter2@"),
            "cluster": start("cluster", "--cluster-enabled", "yes"),
            "other keys": redis_url,
            "too old": old,
        }


@contextmanager
def old_redis() -> Iterator[str]:
    """What a Redis 5 says to a client of today."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                while self.request.recv(65_536):
                    self.request.sendall(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()


WRONG_REDIS = {
    "none": "Redis is away: ",
    "http": "what answers there is no Redis: correct the URL",
    "no password": "it asks for a password: write it into the URL",
    "wrong password": "user name or password is wrong: correct the URL",
    "cluster": "this is a Redis Cluster: use one master",
    "other keys": "choose another namespace or database",
    "too old": "the queue needs Redis >= 6.2",
}


@pytest.mark.parametrize("wrong", WRONG_REDIS)
def test_a_redis_that_cannot_hold_the_queue_ends_a_run_before_it_starts(
    train: Train, odd_redis: dict[str, str], wrong: str
) -> None:
    url = f"--judge.redis_url={odd_redis[wrong]}"
    ended = train(url, f"--judge.namespace={OTHER}", objective={"name": "dpo"}, pool={"rollouts": 2})
    assert ended.status == 1
    assert f"Redis at {shown(odd_redis[wrong])}" in ended.told
    assert "judge.redis_url" in ended.told
    assert WRONG_REDIS[wrong] in ended.told


@pytest.mark.parametrize("wrong", WRONG_REDIS)
def test_a_redis_that_cannot_hold_the_queue_is_told_to_its_operator(
    odd_redis: dict[str, str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", "status", "--redis", odd_redis[wrong], "--namespace", OTHER]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"preceptor: cannot ask Redis at {shown(odd_redis[wrong])}: ")
    assert WRONG_REDIS[wrong] in line
    assert "hunter2" not in line


@pytest.mark.usefixtures("kept_logging")
@pytest.mark.parametrize("wrong", sorted(WRONG_REDIS.keys() - {"none"}))
def test_a_redis_that_cannot_hold_the_queue_ends_a_worker(
    odd_redis: dict[str, str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve_main([*WORKER, f"--queue.url={odd_redis[wrong]}", f"--queue.namespace={OTHER}"]) == 2
    stderr = capsys.readouterr().err
    assert stderr.splitlines()[-1].startswith("worker: ")
    assert WRONG_REDIS[wrong] in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert "hunter2" not in stderr


@pytest.mark.slow
def test_a_redis_that_is_not_there_yet_is_waited_for_by_a_worker(odd_redis: dict[str, str]) -> None:
    command = [sys.executable, "-m", "preceptor_services", *WORKER, f"--queue.url={odd_redis['none']}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        while "waits until it passes: Redis is away" not in worker.stderr.readline():
            assert worker.poll() is None
        worker.terminate()
        worker.communicate(timeout=60)
    assert worker.returncode == 0


@pytest.mark.parametrize("wrong", WRONG_REDIS)
def test_doctor_says_what_is_wrong_with_the_redis(odd_redis: dict[str, str], wrong: str) -> None:
    if wrong == "other keys":
        assert [check.grade for check in check_queue(odd_redis[wrong], "failure")] == ["ok"], "for the usual namespace"
        return
    [check] = check_queue(odd_redis[wrong], "failure")
    assert check.grade == "failure"
    assert WRONG_REDIS[wrong] in check.found
    assert "hunter2" not in check.found
    assert "PRECEPTOR_REDIS_URL" in check.advice


def test_doctor_says_what_would_lose_the_queue(redis_url: str) -> None:
    usual = {"appendonly": "yes", "maxmemory": 0, "maxmemory-policy": "noeviction"}
    careless = {"appendonly": "no", "maxmemory": 10**9, "maxmemory-policy": "allkeys-lru"}
    with redis.Redis.from_url(redis_url) as connection:
        try:
            for name, value in careless.items():
                connection.config_set(name, value)
            _, *warnings = check_queue(redis_url, "failure")
        finally:
            for name, value in usual.items():
                connection.config_set(name, value)
    assert {check.grade for check in warnings} == {"warning"}
    assert [check.advice for check in warnings] == ["set `appendonly yes`", "set `maxmemory-policy noeviction`"]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Judge and rewrite service, which ask for a key: name -> URL."""
    keys_file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    add_key(keys_file, "alice")
    with served(scripted_teacher(judges_by_a_word)) as teacher:
        settings = ServiceSettings.model_validate(
            {"engine": {"urls": [teacher]}, "rubrics": ["nano"], "auth": {"keys_file": keys_file}}
        )
        with served(judge_app(settings)) as judge, served(rewrite_app(settings)) as rewrite:
            wait_until_ready(judge)
            wait_until_ready(rewrite)
            yield {"judge": judge, "rewrite": rewrite}


@pytest.mark.parametrize("command", ["judge", "rewrite"])
@pytest.mark.parametrize("key", ["hunter2", None])
def test_a_key_that_a_service_does_not_take_is_told(
    locked: dict[str, str],
    command: str,
    key: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if key:
        monkeypatch.setenv("PRECEPTOR_API_KEY", key)
    assert run([command, "--url", locked[command], "a", "b"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("preceptor: ")
    assert "PRECEPTOR_API_KEY" in line
    assert "hunter2" not in line


def test_a_key_that_the_rewrite_service_does_not_take_ends_a_run(
    train: Train, locked: dict[str, str], redis_url: str
) -> None:
    ended = train(
        rewrite={"url": locked["rewrite"], "api_key": "hunter2"},
        pool={"rewrite": True, "rollouts": 1},
        objective={"name": "dpo"},
        judge={"redis_url": redis_url, "namespace": "locked"},
    )
    assert ended.status == 1
    assert "set rewrite.api_key" in ended.told
    assert "hunter2" not in ended.told


def evaluate(folder: Path, *options: str) -> Ended:
    sizes = ["--prefix-tokens=8", "--suffix-tokens=6", "--windows=2"]
    arguments = [str(folder / "policy"), f"--data={folder / 'documents.jsonl'}", *sizes, *options]
    result = CliRunner().invoke(app, ["eval", *arguments])
    return Ended(result.exit_code, result.stderr)


def test_a_key_that_the_judge_does_not_take_ends_an_evaluation(
    locked: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run(tmp_path, "")
    monkeypatch.setenv("PRECEPTOR_API_KEY", "hunter2")
    ended = evaluate(tmp_path, f"--judge-url={locked['judge']}")
    assert ended.status == 1
    assert "PRECEPTOR_API_KEY" in ended.told
    assert "hunter2" not in ended.stderr


def test_an_evaluation_stops_at_a_bad_document_or_passes_over_it(locked: dict[str, str], tmp_path: Path) -> None:
    tiny_run(tmp_path, "")
    (tmp_path / "documents.jsonl").write_bytes(b"{\n" + GOOD * 3)
    ended = evaluate(tmp_path)
    assert ended.status == 1
    assert "documents.jsonl:1: not JSON" in ended.told
    assert ended.told.endswith("to pass over such documents set --bad-documents=skip")
    ended = evaluate(tmp_path, "--bad-documents=skip", f"--judge-url={locked['judge']}")
    assert "documents.jsonl:1: not JSON" in ended.stderr
    assert "needs an API key" in ended.told, "the documents were read"


RUBBISH = ["", "A B", "yes?", "\x00", "\U0001f937", "<think>", '{"verdict": 7}', "tie " * 400, "quality: A\nquality: B"]


def answers_rubbish(prompt: str) -> str:
    return RUBBISH[len(prompt) % len(RUBBISH)]


def breaks_the_protocol(prompt: str) -> str | httpx.Response:
    """After it was well when it was looked at."""
    bodies = [b"", b"rubbish", b"[]", b'{"choices": 3}', b'{"choices": [{"index": 0, "text": 7}], "usage": {}}']
    return "A" if prompt == "ready" else httpx.Response(200, content=bodies[len(prompt) % len(bodies)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "outcome"), [(answers_rubbish, "unjudged"), (breaks_the_protocol, "dead")], ids=["text", "protocol"]
)
def test_a_teacher_that_answers_rubbish_trains_nothing_and_ends_a_run(
    train: Train, tmp_path: Path, stack: Stack, redis_url: str, teacher: Answer, outcome: str
) -> None:
    namespace = f"rubbish-{outcome}"
    with served(scripted_teacher(teacher)) as url:
        overrides = [f"--queue.namespace={namespace}", "--queue.max_deliveries=2"]
        worker = stack.start(worker_part(tmp_path, url, "teacher", redis_url, overrides=overrides))
        try:
            ended = train(
                objective={"name": "dpo"},
                pool={"rollouts": 2},
                judge={"redis_url": redis_url, "namespace": namespace, "give_up_after": 6},
            )
            with httpx.Client() as http:
                assert http.get(f"{worker.part.url}/healthz").status_code == 200
        finally:
            stack.stop_part(worker)
    assert worker.returncode == 0
    assert ended.status == 1
    assert f"6 cohorts in a row could not be trained on; the last was {outcome} (reason: " in ended.told
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == ""
    ends = read_ledger(tmp_path / "out" / "cohorts.jsonl")
    assert [end["outcome"] for end in ends] == [outcome] * len(ends)
    assert len(ends) >= 6
    assert not any(end["scores"] for end in ends)
    assert summary(tmp_path)["events"][outcome] == len(ends)
    assert not list((tmp_path / "out").rglob("*.safetensors"))
