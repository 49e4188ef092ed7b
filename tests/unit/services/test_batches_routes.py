"""`/v1/batches` of the real app, over real sockets and a real Redis, with a teacher that answers by a rule."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from preceptor_client import Candidate, ClientSettings, Cohort, JudgeRequest, PreceptorClient
from preceptor_client.contract import BatchRequest, BatchResult, BatchState
from preceptor_client.errors import InvalidRequestError, ServiceError
from preceptor_client.keys import add_key
from preceptor_services.app import judge_app
from preceptor_services.settings import ServiceSettings
from served import judges_by_a_word, scripted_teacher, served, wait_until_ready


class Gate:
    """A teacher that judges so many candidates, then waits to be let on."""

    def __init__(self) -> None:
        self.shut()

    def shut(self) -> None:
        self.places = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, prompt: str) -> str:
        if prompt.startswith("<safety>") and not self.open.is_set():
            while not (self.places.acquire(timeout=0.02) or self.open.is_set()):
                pass
        return judges_by_a_word(prompt)

    def let_on(self, count: int | None = None) -> None:
        if count is None:
            self.open.set()
        else:
            self.places.release(count)


@pytest.fixture(scope="module")
def settings(redis_url: str) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {
            "rubrics": ("nano",),
            "store": {"url": redis_url, "namespace": f"test-{uuid.uuid4().hex[:8]}"},
            "cache": {"enabled": False},
            "batches": {"concurrency": 1, "lease_s": 1, "max_waiting": 50, "max_body_bytes": 100_000},
            "web": {"max_body_bytes": 10_000},
        }
    )


@pytest.fixture(scope="module")
def the_gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def teacher(the_gate: Gate) -> Iterator[str]:
    with served(scripted_teacher(the_gate)) as url:
        yield url
        the_gate.let_on()


@pytest.fixture(scope="module")
def service(settings: ServiceSettings, teacher: str) -> Iterator[str]:
    with served(judge_app(with_teacher(settings, teacher))) as url:
        wait_until_ready(url)
        yield url


@pytest.fixture
def gate(the_gate: Gate) -> Gate:
    """Shut, with nothing waiting before it."""
    the_gate.shut()
    return the_gate


@pytest.fixture
def client(service: str, gate: Gate) -> Iterator[PreceptorClient]:
    with PreceptorClient(settings=ClientSettings(judge_url=service, retries=0)) as client:
        yield client
        gate.let_on()
        while "preceptor_batch_items_waiting 0.0" not in httpx.get(f"{service}/metrics").text:
            threading.Event().wait(0.05)


def with_teacher(settings: ServiceSettings, url: str) -> ServiceSettings:
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"urls": (url,)})})


def requests(count: int, prefix: str = "p") -> list[JudgeRequest]:
    return [
        JudgeRequest(
            cohort=Cohort(
                id=f"c{place}", prefix=prefix, candidates=(Candidate(id="a", text=("good", "bad")[place % 2]),)
            ),
            axes=("safety",),
        )
        for place in range(count)
    ]


def scores(results: list[BatchResult]) -> dict[int, float | None]:
    return {each.index: each.response.verdicts[0].score for each in results if each.response}


def test_results_come_as_they_are_ready(client: PreceptorClient, gate: Gate) -> None:
    batch = client.submit_batch(requests(6))
    assert (batch.state, batch.total, batch.done) == (BatchState.RUNNING, 6, 0)
    results = client.batch_results(batch.id)
    for place in range(6):
        gate.let_on(1)
        assert next(results).index == place
    assert [*results] == []
    assert scores([*client.batch_results(batch.id)]) == {place: float(place % 2 == 0) for place in range(6)}
    done = client.batch(batch.id)
    assert (done.state, done.done, done.failed) == (BatchState.DONE, 6, 0)


def test_a_stream_goes_on_after_the_last_event_received(client: PreceptorClient, service: str, gate: Gate) -> None:
    gate.let_on()
    batch = client.submit_batch(requests(5))
    assert len([*client.batch_results(batch.id)]) == 5
    headers = {"Last-Event-ID": "3"}
    reply = httpx.get(f"{service}/v1/batches/{batch.id}/events", headers=headers)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in reply.text.strip().split("\n\n")]
    assert [(event["event"], event.get("id")) for event in events] == [("result", "4"), ("result", "5"), ("done", None)]
    assert [each.index for each in client.batch_results(batch.id, after=4)] == [4]


def test_results_are_also_lines(client: PreceptorClient, service: str, gate: Gate) -> None:
    gate.let_on()
    batch = client.submit_batch(requests(4))
    assert len([*client.batch_results(batch.id)]) == 4
    for after in (0, 3, 4):
        reply = httpx.get(f"{service}/v1/batches/{batch.id}/results", params={"after": after})
        assert reply.headers["content-type"] == "application/x-ndjson"
        lines = [BatchResult.model_validate_json(line) for line in reply.text.splitlines()]
        assert [line.index for line in lines] == [*range(after, 4)]


def test_an_item_that_cannot_be_judged_is_a_problem_among_the_others(client: PreceptorClient, gate: Gate) -> None:
    gate.let_on()
    odd = requests(1)[0].model_copy(update={"axes": ("style",)})
    batch = client.submit_batch([*requests(2), odd])
    results = {each.index: each for each in client.batch_results(batch.id)}
    assert sorted(results) == [0, 1, 2]
    problem = results[2].problem
    assert problem is not None
    assert (problem.status, "no rubric" in (problem.detail or "")) == (422, True)
    assert client.batch(batch.id).failed == 1


def test_cancelling_stops_what_has_not_begun(client: PreceptorClient, gate: Gate) -> None:
    batch = client.submit_batch(requests(30))
    results = client.batch_results(batch.id)
    gate.let_on(2)
    assert [next(results).index for _ in range(2)] == [0, 1]
    cancelled = client.cancel_batch(batch.id)
    assert (cancelled.state, cancelled.done) == (BatchState.CANCELLED, 2)
    assert [*results] == []
    gate.let_on()
    after = client.submit_batch(requests(3))
    assert len([*client.batch_results(after.id)]) == 3
    assert client.batch(batch.id) == cancelled


def test_a_submission_may_be_repeated(client: PreceptorClient) -> None:
    first = client.submit_batch(requests(3), batch_id="mine")
    assert client.submit_batch(requests(3), batch_id="mine") == first
    with pytest.raises(InvalidRequestError, match=r"409 Conflict: the batch 'mine' is there with other items"):
        client.submit_batch(requests(4), batch_id="mine")


def test_too_many_waiting_items_are_told_to_come_back(client: PreceptorClient, service: str) -> None:
    client.submit_batch(requests(40))
    with pytest.raises(ServiceError, match=r"503 .* come back later"):
        client.submit_batch(requests(20))
    reply = httpx.post(f"{service}/v1/batches", json={"items": [each.model_dump() for each in requests(20)]})
    assert int(reply.headers["Retry-After"]) > 0


def test_a_batch_may_be_larger_than_a_request_and_no_larger_than_allowed(service: str) -> None:
    def body(length: int) -> str:
        return BatchRequest(items=tuple(requests(4, "x" * (length // 4)))).model_dump_json()

    assert httpx.post(f"{service}/v1/judge", content=body(30_000)).status_code == 413
    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{service}/v1/batches", content=body(30_000), headers=headers).status_code == 202
    assert httpx.post(f"{service}/v1/batches", content=body(120_000), headers=headers).status_code == 413


def test_mistakes_are_answered_with_what_to_change(service: str) -> None:
    for method, path, status, told in (
        ("GET", "/v1/batches/none", 404, "no batch 'none': it never was, or it has expired"),
        ("GET", "/v1/batches/none/events", 404, "no batch 'none'"),
        ("GET", "/v1/batches/none/results", 404, "no batch 'none'"),
        ("POST", "/v1/batches/none/cancel", 404, "no batch 'none'"),
        ("GET", "/v1/batches/a%20b", 422, "batch_id"),
        ("POST", "/v1/batches", 422, "send it with Content-Type: application/json"),
    ):
        reply = httpx.request(method, service + path)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json"), path
        assert told in reply.json()["detail"]


def test_without_a_redis_the_routes_say_what_to_set(teacher: str) -> None:
    settings = with_teacher(ServiceSettings(rubrics=("nano",)), teacher)
    with served(judge_app(settings)) as url, PreceptorClient(url) as client:
        with pytest.raises(InvalidRequestError, match=r"404 .* set store\.url to a Redis"):
            client.submit_batch(requests(1))
        with pytest.raises(InvalidRequestError, match=r"set store\.url"):
            client.batch("x")


def test_a_redis_that_is_away_is_a_problem_with_a_time_to_come_back(settings: ServiceSettings, teacher: str) -> None:
    away = settings.store.model_copy(update={"url": "redis://127.0.0.1:9/0"})
    with served(judge_app(with_teacher(settings.model_copy(update={"store": away}), teacher))) as url:
        reply = httpx.get(f"{url}/v1/batches/b", timeout=30)
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
    assert "Redis cannot be used" in reply.json()["detail"]


def test_a_batch_is_its_callers_alone(settings: ServiceSettings, teacher: str, tmp_path: Path, gate: Gate) -> None:
    gate.let_on()
    keys = tmp_path / "keys.yaml"
    mine, yours = (add_key(keys, name) for name in ("mine", "yours"))
    settings = settings.model_copy(update={"auth": settings.auth.model_copy(update={"keys_file": keys})})
    with (
        served(judge_app(with_teacher(settings, teacher))) as url,
        PreceptorClient(url, api_key=mine) as me,
        PreceptorClient(url, api_key=yours) as you,
    ):
        wait_until_ready(url)
        batch = me.submit_batch(requests(2), batch_id="b")
        for call in (you.batch, you.cancel_batch, lambda name: [*you.batch_results(name)]):
            with pytest.raises(InvalidRequestError, match="404"):
                call(batch.id)
        assert len([*me.batch_results(batch.id)]) == 2
        spent = [
            line for line in httpx.get(f"{url}/metrics").text.splitlines() if 'tokens_total{caller="mine"}' in line
        ]
        assert float(spent[0].split()[1]) > 0


def test_following_does_not_keep_a_service_from_stopping(settings: ServiceSettings, teacher: str, gate: Gate) -> None:
    with served(judge_app(with_teacher(settings, teacher))) as url:
        wait_until_ready(url)
        with PreceptorClient(url) as client:
            batch = client.submit_batch(requests(3))
        gate.let_on(1)
        following = httpx.Client().stream("GET", f"{url}/v1/batches/{batch.id}/events", timeout=30)
        lines: list[str] = []

        def read() -> None:
            with following as response:
                answered.set()
                lines.extend(response.iter_lines())

        answered = threading.Event()
        reading = threading.Thread(target=read)
        reading.start()
        assert answered.wait(10)
    reading.join(timeout=5)  # less than what open connections are granted
    assert not reading.is_alive()
    assert "event: done" not in lines


def test_a_service_that_stops_does_not_say_that_all_was_told(
    settings: ServiceSettings, teacher: str, gate: Gate
) -> None:
    gate.let_on()
    app = judge_app(with_teacher(settings, teacher))
    with served(app) as url:
        wait_until_ready(url)
        with PreceptorClient(url) as client:
            batch = client.submit_batch(requests(3))
            assert len([*client.batch_results(batch.id)]) == 3
        app.state.stopping = asyncio.Event()
        app.state.stopping.set()
        events = httpx.get(f"{url}/v1/batches/{batch.id}/events").text
    assert "event: done" not in events
