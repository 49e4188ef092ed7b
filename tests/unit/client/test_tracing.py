"""What the packages say of traces, with and without OpenTelemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import StatusCode, TraceFlags

from preceptor_client import ClientSettings, tracing
from preceptor_client.calls import judge_call, judge_texts_request
from preceptor_client.contract import JudgeTask
from preceptor_client.contract.base import as_traceparent
from preceptor_client.tracing.otlp import CohortsAndTheirUpdates
from traced import Recorded, id_of, parent_of, recording, said, traceparent_of

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
REQUEST = judge_texts_request("p", ["a"])


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as recorded:
        yield recorded


def test_a_process_that_does_not_trace_says_nothing_and_sends_nothing() -> None:
    with tracing.span("work", {"cohort": "c"}) as span:
        assert span is tracing.begin("other", parent=PARENT) is tracing.UNTRACED
        assert tracing.traceparent() is None
        assert "traceparent" not in judge_call(REQUEST, ClientSettings(), None).arguments()["headers"]
    assert not tracing.is_on()


def test_without_tracing_nothing_imports_opentelemetry() -> None:
    code = """
import sys, preceptor_client
from preceptor_client import tracing
with tracing.running(tracing.TracingSettings(), "s"), tracing.span("x"):
    print(*[name for name in sys.modules if name.startswith("opentelemetry")])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_without_the_extra_everything_runs_until_traces_are_asked_for() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
import preceptor_services.worker, preceptor_services.__main__ as main
from preceptor_client import tracing
with tracing.running(tracing.TracingSettings(), "s"): pass
sys.exit(main.main(["worker", "--tracing.enabled=true"]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "worker: tracing is on, and opentelemetry is not installed: pip install 'preceptor[tracing]', "
        "or set tracing.enabled=false\n"
    )


@pytest.mark.parametrize(
    ("enabled", "environment", "on"),
    [
        (None, {}, False),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (None, {"OTEL_TRACES_EXPORTER": "none"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        (True, {}, True),
        (False, {"OTEL_TRACES_EXPORTER": "otlp"}, False),
        (True, {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_traces_are_asked_for_by_configuration_or_environment(
    monkeypatch: pytest.MonkeyPatch, enabled: bool | None, environment: dict[str, str], on: bool
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracing.TracingSettings(enabled=enabled).on is on


def test_a_span_continues_the_trace_of_its_parent_and_is_that_of_its_block(recorded: Recorded) -> None:
    with tracing.span("outer", {"cohort": "c", "left_out": None}, parent=PARENT, kind="consumer"):
        headers = judge_call(REQUEST, ClientSettings(), None).arguments()["headers"]
        with tracing.span("inner", {"http.route": "/r"}):
            pass
    outer, inner = recorded.one("outer"), recorded.one("inner")
    assert traceparent_of(outer)[3:35] == PARENT[3:35]
    assert parent_of(outer) == int(PARENT[36:52], 16)
    assert parent_of(inner) == id_of(outer)
    assert headers["traceparent"] == traceparent_of(outer)
    assert dict(outer.attributes or {}) == {"preceptor.cohort": "c"}
    assert dict(inner.attributes or {}) == {"http.route": "/r"}
    assert outer.kind.name == "CONSUMER"


def test_a_span_tells_the_type_of_an_error_and_never_its_words(recorded: Recorded) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("work"):
        raise ValueError("a secret text")
    span = recorded.one("work")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert "secret" not in said(recorded.all)


async def test_work_that_is_cancelled_has_not_failed(recorded: Recorded) -> None:
    with pytest.raises(asyncio.CancelledError), tracing.span("work"):
        raise asyncio.CancelledError
    assert recorded.one("work").status.status_code is StatusCode.UNSET


def test_shared_work_belongs_to_the_first_and_points_at_the_others_as_they_do_at_it(recorded: Recorded) -> None:
    first, second = tracing.begin("first"), tracing.begin("second")
    with tracing.shared("work", [first, second]):
        assert tracing.headers() != {"traceparent": first.traceparent}
    first.end()
    second.end()
    work = recorded.one("work")
    assert parent_of(work) == id_of(recorded.one("first"))
    assert [link.context.span_id for link in work.links] == [id_of(recorded.one("second"))]
    assert [link.context.span_id for link in recorded.one("second").links] == [id_of(work)]
    assert recorded.one("first").links == ()


def test_what_is_told_afterwards_has_its_times_and_a_clock_ahead_of_ours_no_negative_ones(recorded: Recorded) -> None:
    tracing.record("wait", parent=PARENT, since_s=100.0, until_s=102.5)
    tracing.record("ahead", parent=PARENT, since_s=time.time() + 60)
    tracing.record("of no trace", parent=None, since_s=100.0)
    wait, ahead = recorded.all
    assert wait.start_time is not None
    assert wait.end_time is not None
    assert (wait.start_time, wait.end_time - wait.start_time) == (100_000_000_000, 2_500_000_000)
    assert ahead.start_time is not None
    assert ahead.end_time is not None
    assert ahead.start_time <= ahead.end_time


def test_a_cohort_that_is_not_sampled_says_so_to_others_and_an_update_is_told_if_one_of_its_cohorts_is() -> None:
    with recording(ParentBased(CohortsAndTheirUpdates(0.0))) as recorded:
        with tracing.span("cohort") as cohort:
            assert int(tracing.headers()["traceparent"][-2:], 16) & TraceFlags.SAMPLED == 0
            with tracing.span("below"):
                pass
        with tracing.span("update", links=[cohort.traceparent]):
            pass
        assert recorded.all == []
        with tracing.span("update", links=[cohort.traceparent, PARENT]):
            pass
        assert len(recorded.one("update").links) == 1


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x" * 100_000,
        PARENT + "\n",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-{'cd' * 8}-01",
        f"00-{'ab' * 16}-{'0' * 16}-01",
    ],
)
def test_a_traceparent_that_is_none_is_as_good_as_absent(text: str | None) -> None:
    assert as_traceparent(text) is None
    assert as_traceparent(PARENT) == PARENT
    task = JudgeTask(run="r", request=REQUEST)
    assert JudgeTask.model_validate({**task.model_dump(), "trace": text}) == task


class Collector(BaseHTTPRequestHandler):
    """Takes traces as a collector does."""

    taken: list[tuple[str, ExportTraceServiceRequest]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_process_that_traces_sends_all_it_has_to_the_collector_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Collector.taken = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        settings = tracing.TracingSettings(enabled=True, endpoint=endpoint)
        with (
            tracing.running(settings, "preceptor-worker"),
            tracing.span("judge cohort", {"axes": ("quality", "safety"), "calls": 3}),
        ):
            pass
        server.shutdown()
    assert not tracing.is_on()
    [(path, taken)] = Collector.taken
    assert path == "/v1/traces"
    [resource] = taken.resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (named["service.name"], named["deployment.environment"]) == ("preceptor-worker", "test")
    [span] = resource.scope_spans[0].spans
    assert span.name == "judge cohort"
    assert {each.key for each in span.attributes} == {"preceptor.axes", "preceptor.calls"}
