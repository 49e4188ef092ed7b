"""Reading a batch's results over connections that break: what is asked for, what is read, when to ask again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from preceptor_client import AsyncPreceptorClient, Candidate, ClientSettings, Cohort, JudgeRequest, PreceptorClient
from preceptor_client.batches import Reading, submit_call
from preceptor_client.contract import Batch, BatchRequest, BatchResult, BatchState, Problem
from preceptor_client.errors import InvalidRequestError, ServiceUnreachableError, UnexpectedResponseError

SETTINGS = ClientSettings(judge_url="http://judge:1/", api_key="secret", read_timeout_s=100, backoff_s=0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DONE = Batch(id="b", state=BatchState.DONE, total=4, done=4, failed=4, created_at=NOW, expires_at=NOW)
BROKEN = httpx.RemoteProtocolError("peer closed connection")


def result(index: int) -> BatchResult:
    return BatchResult(index=index, problem=Problem(title="no", status=422))


def event(number: int) -> ServerSentEvent:
    return ServerSentEvent(event="result", id=str(number), data=result(number - 1).model_dump_json())


def done() -> ServerSentEvent:
    return ServerSentEvent(event="done", data=DONE.model_dump_json())


def requests() -> list[JudgeRequest]:
    return [JudgeRequest(cohort=Cohort(id="c", prefix="p", candidates=(Candidate(id="a", text="x"),)))]


def test_a_submission_has_an_id_so_that_it_can_be_repeated() -> None:
    call = submit_call(requests(), None, SETTINGS)
    first, again = (BatchRequest.model_validate_json(call.arguments()["content"]) for _ in range(2))
    assert first.id is not None
    assert first == again
    assert submit_call(requests(), None, SETTINGS).message != first
    assert submit_call(requests(), "mine", SETTINGS).message == BatchRequest(id="mine", items=tuple(requests()))


def test_every_connection_asks_for_what_is_missing() -> None:
    reading = Reading("b", SETTINGS, after=2)
    arguments = reading.arguments()
    assert arguments["url"] == "http://judge:1/v1/batches/b/events"
    assert arguments["headers"]["Authorization"] == "Bearer secret"
    assert arguments["headers"]["Last-Event-ID"] == "2"
    assert reading.read(event(3)) == result(2)
    assert reading.arguments()["headers"]["Last-Event-ID"] == "3"
    assert reading.read(done()) is None
    assert reading.ended == DONE


@pytest.mark.parametrize("outcome", [None, BROKEN, httpx.ConnectError("refused"), httpx.ReadTimeout(""), 503])
def test_a_break_is_followed_by_another_attempt_for_as_long_as_an_answer_may_take(outcome: Any) -> None:
    now = [0.0]
    reading = Reading("b", SETTINGS, clock=lambda: now[0])
    response = httpx.Response(outcome) if isinstance(outcome, int) else outcome
    for _ in range(50):
        assert reading.pause_after(response) >= 0
    now[0] = 90.0
    reading.read(event(1))  # word from the service: patience begins anew
    now[0] = 180.0
    reading.pause_after(response)
    now[0] = 191.0
    with pytest.raises(Exception, match=r"503|cannot be reached"):
        reading.pause_after(response)


def test_what_asking_again_cannot_help_is_raised() -> None:
    problem = Problem(title="Not Found", status=404, detail="no batch 'b'")
    with pytest.raises(InvalidRequestError, match="no batch 'b'"):
        Reading("b", SETTINGS).pause_after(httpx.Response(404, content=problem.model_dump_json()))
    with pytest.raises(ServiceUnreachableError):
        Reading("b", SETTINGS.model_copy(update={"retries": 0})).pause_after(BROKEN)


@pytest.mark.parametrize("changes", [{"data": "{}"}, {"data": "x"}, {"id": "one"}])
def test_an_event_that_does_not_follow_the_contract_is_raised(changes: dict[str, str]) -> None:
    good: dict[str, Any] = {"event": "result", "id": "1", "data": result(0).model_dump_json()}
    with pytest.raises(UnexpectedResponseError, match="does not follow the contract"):
        Reading("b", SETTINGS).read(ServerSentEvent(**{**good, **changes}))


class Service(httpx.AsyncByteStream, httpx.SyncByteStream):
    """Streams four results, two a connection, the first of which breaks within an event."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers["Last-Event-ID"])
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=self)

    def _parts(self) -> Iterator[bytes]:
        start = int(self.asked[-1])
        yield b": ping\n\n"
        for number in (start + 1, start + 2):
            text = f"event: result\nid: {number}\ndata: {result(number - 1).model_dump_json()}\n\n".encode()
            yield text[:20]
            yield text[20:]
        if start == 0:
            yield b"event: result\nid: 3\nda"
            raise BROKEN
        yield f"event: done\ndata: {DONE.model_dump_json()}\n\n".encode()

    def __iter__(self) -> Iterator[bytes]:
        return self._parts()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts():
            yield part


async def test_both_clients_read_on_after_a_break() -> None:
    service = Service()
    with PreceptorClient(settings=SETTINGS, transport=httpx.MockTransport(service.handle)) as client:
        assert [*client.batch_results("b")] == [result(place) for place in range(4)]
    async with AsyncPreceptorClient(settings=SETTINGS, transport=httpx.MockTransport(service.handle)) as async_client:
        assert [each async for each in async_client.batch_results("b")] == [result(place) for place in range(4)]
    assert service.asked == ["0", "2", "0", "2"]
