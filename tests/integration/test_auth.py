"""Keys and limits as a caller meets them: real services over sockets, the real client, a real Redis."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from preceptor_client import AsyncPreceptorClient, PreceptorClient
from preceptor_client.contract import Candidate, Cohort, JudgeRequest
from preceptor_client.errors import AuthenticationError, RateLimitedError
from preceptor_client.keys import add_key, remove_key
from preceptor_client.settings import ClientSettings
from preceptor_client.stack import Stack, judge_part
from preceptor_services.app import judge_app
from preceptor_services.settings import ServiceSettings
from served import judges_by_a_word, scripted_teacher, served, wait_until_ready

Serve = Callable[..., str]
IMPATIENT = ClientSettings(retries=0)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
def gate() -> threading.Event:
    """While it is not set, the teacher holds back its answers to what `slow` is in."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def serve_judge(keys_file: Path, gate: threading.Event) -> Iterator[Serve]:
    """`serve_judge(**sections)`: the URL of a judge service that asks for the keys in `keys_file`."""
    with ExitStack() as stack:
        stack.callback(gate.set)

        def answer(prompt: str) -> str:
            if "slow" in prompt:
                gate.wait(30)
            return judges_by_a_word(prompt)

        teacher = stack.enter_context(served(scripted_teacher(answer)))

        def serve(**sections: object) -> str:
            settings = {"engine": {"urls": [teacher]}, "rubrics": ["nano"], "auth": {"keys_file": keys_file}}
            app = judge_app(ServiceSettings.model_validate({**settings, **sections}))
            url = stack.enter_context(served(app))
            wait_until_ready(url)
            return url

        yield serve


def use_up_requests(url: str, key: str) -> None:
    with httpx.Client(base_url=url, headers={"X-API-Key": key}) as http:
        while http.get("/v1/rubrics").status_code == 200:
            pass


def test_the_client_waits_for_its_limit_and_then_succeeds(serve_judge: Serve, keys_file: Path) -> None:
    key = add_key(keys_file, "alice", requests_per_minute=60)
    url = serve_judge()
    use_up_requests(url, key)
    with PreceptorClient(url, api_key=key, settings=IMPATIENT) as impatient, pytest.raises(RateLimitedError) as refused:
        impatient.judge_texts("anna", ["good .", "bad ."])
    assert "60 requests a minute" in str(refused.value)
    with PreceptorClient(url, api_key=key) as client:
        started = time.monotonic()
        response = client.judge_texts("anna", ["good .", "bad ."])
    assert {verdict.status for verdict in response.verdicts} == {"ok"}
    assert time.monotonic() - started >= 0.9


async def test_many_tasks_of_one_key_keep_within_its_share(serve_judge: Serve, keys_file: Path) -> None:
    key = add_key(keys_file, "alice", concurrency=2)
    url = await asyncio.to_thread(serve_judge)
    patient = ClientSettings(retries=20)
    async with AsyncPreceptorClient(url, api_key=key, settings=patient) as client:
        texts = [["good .", f"bad {index} ."] for index in range(6)]
        responses = await asyncio.gather(*(client.judge_texts("anna", pair, axes=["safety"]) for pair in texts))
    assert len(responses) == 6


async def test_a_busy_key_is_refused_and_others_are_not(
    serve_judge: Serve, keys_file: Path, gate: threading.Event
) -> None:
    alice, bob = add_key(keys_file, "alice", concurrency=1), add_key(keys_file, "bob")
    url = await asyncio.to_thread(serve_judge)
    gate.clear()
    slow = JudgeRequest(
        cohort=Cohort(id="c", prefix="anna", candidates=(Candidate(id="a", text="slow"),)), axes=("safety",)
    )
    async with (
        AsyncPreceptorClient(url, api_key=alice, settings=IMPATIENT) as busy,
        AsyncPreceptorClient(url, api_key=bob, settings=IMPATIENT) as other,
    ):
        one = asyncio.create_task(busy.judge(slow))
        another = asyncio.create_task(busy.judge(slow, idempotency_key="another"))
        done, open_ = await asyncio.wait((one, another), return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(RateLimitedError, match="1 requests in work at once"):
            done.pop().result()
        third = asyncio.create_task(other.judge(slow))
        gate.set()
        assert [v.status for task in (open_.pop(), third) for v in (await task).verdicts] == ["ok", "ok"]


def test_tokens_are_charged_once_and_shared_by_replicas(
    serve_judge: Serve, keys_file: Path, redis_url: str, tmp_path: Path
) -> None:
    key = add_key(keys_file, "alice", tokens_per_minute=100)
    store = {"url": redis_url, "namespace": f"auth-{tmp_path.name}"}
    one, other = (serve_judge(store=store, cache={"enabled": False}) for _ in range(2))
    texts = ["good " * 60, "bad " * 60]
    with (
        PreceptorClient(one, api_key=key, settings=IMPATIENT) as here,
        PreceptorClient(other, api_key=key, settings=IMPATIENT) as there,
    ):
        spent = here.judge_texts("anna", texts).usage
        with pytest.raises(RateLimitedError, match="100 tokens a minute"):
            there.judge_texts("anna", texts)
    counted = httpx.get(f"{one}/metrics").text
    assert f'preceptor_caller_tokens_total{{caller="alice"}} {spent.prompt_tokens + spent.completion_tokens}' in counted


def test_callers_do_not_see_each_others_idempotency_keys(serve_judge: Serve, keys_file: Path) -> None:
    alice, bob = add_key(keys_file, "alice"), add_key(keys_file, "bob")
    url = serve_judge()
    bodies = [{"cohort": {"id": name, "prefix": "x", "candidates": [{"id": "a", "text": "good"}]}} for name in "ab"]
    for key, body in ((alice, bodies[0]), (bob, bodies[1])):
        headers = {"X-API-Key": key, "Idempotency-Key": "1"}
        reply = httpx.post(f"{url}/v1/judge", json=body, headers=headers)
        assert (reply.status_code, reply.json()["cohort_id"]) == (200, body["cohort"]["id"])


def test_a_process_takes_and_refuses_keys_as_the_file_changes(stack: Stack, keys_file: Path, tmp_path: Path) -> None:
    first = add_key(keys_file, "first")
    with served(scripted_teacher(judges_by_a_word)) as teacher:
        part = judge_part(tmp_path, teacher, "teacher", overrides=[f"--auth.keys_file={keys_file}"])
        url = str(stack.start(part).part.url)
        with PreceptorClient(url) as nobody, pytest.raises(AuthenticationError, match="needs an API key"):
            nobody.judge_texts("sekretprefix", ["good ."])
        second = add_key(keys_file, "second")
        remove_key(keys_file, "first")

        def status(key: str) -> int:
            return httpx.get(f"{url}/v1/rubrics", headers={"Authorization": f"Bearer {key}"}).status_code

        deadline = time.monotonic() + 20
        while (status(first), status(second)) != (401, 200):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with PreceptorClient(url, api_key=second) as client:
            client.judge_texts("sekretprefix", ["good ."])
    logged = part.log.read_text()
    records = [json.loads(line) for line in logged.splitlines()]
    assert {"second", None} <= {record["caller"] for record in records if "caller" in record}
    assert not any(secret in logged for secret in ("sekretprefix", first, second))
