from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from preceptor_client.keys import add_key
from preceptor_services.app import judge_app
from preceptor_services.logs import request_id, set_up
from preceptor_services.settings import LogSettings, ServiceSettings
from served import scripted_teacher, served, wait_until_ready

pytestmark = pytest.mark.usefixtures("kept_logging")

SECRETS = ("sekretprefix", "sekretcandidate", "sekretreason")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as cause:
        raise RuntimeError(text) from cause


def test_a_line_is_json_with_time_level_logger_and_request() -> None:
    set_up(LogSettings(), stream := io.StringIO())
    request_id.set("r-1")
    logging.getLogger("some.library").warning("%d\nthings", 3, extra={"route": "/x"})
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "some.library",
        "message": "3\nthings",
        "request_id": "r-1",
        "route": "/x",
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_of_an_exception_only_type_and_place_are_told(form: str) -> None:
    for texts in (False, True):
        set_up(LogSettings.model_validate({"format": form, "texts": texts}), stream := io.StringIO())
        try:
            fail_with("sek" + "ret")  # a traceback quotes source lines
        except RuntimeError:
            logging.getLogger("x").exception("it failed")
        logged = stream.getvalue()
        assert "fail_with" in logged
        assert "ValueError" in logged
        assert "RuntimeError" in logged
        assert ("sekret" in logged) == texts


def test_the_level_is_kept_and_libraries_that_show_headers_stay_silent() -> None:
    set_up(LogSettings(level="debug"), stream := io.StringIO())
    logging.getLogger("httpcore.http11").debug("authorization: sekret")
    logging.getLogger("mine").debug("shown")
    assert [line["message"] for line in lines(stream)] == ["shown"]
    set_up(LogSettings(level="error"), stream := io.StringIO())
    logging.getLogger("mine").warning("not shown")
    assert not stream.getvalue()


@pytest.fixture
def teacher() -> FastAPI:
    """Quotes what it was asked, in answers and in errors, and fails in each way."""
    answers = iter(range(1_000_000))

    def answer(prompt: str) -> str | httpx.Response:
        number = next(answers)
        if number < 6:  # enough in a row that the engine is lost
            return httpx.Response(500, text=f"cannot do: {prompt}")
        match number % 3:
            case 0:
                return httpx.Response(400, json={"error": {"message": prompt}})
            case 1:
                return httpx.Response(200, json={"choices": [{"index": prompt}]})
        return f"sekretreason {prompt}"

    def polite(prompt: str) -> str | httpx.Response:
        return answer(prompt) if "sekret" in prompt else "safe"

    return scripted_teacher(polite)


@pytest.mark.parametrize("texts", [False, True])
def test_texts_and_keys_stay_out_of_the_log_whatever_goes_wrong(texts: bool, teacher: FastAPI, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.yaml", "alice")
    set_up(LogSettings(level="debug", texts=texts), stream := io.StringIO())
    with served(teacher) as teacher_url:
        settings = ServiceSettings.model_validate(
            {
                "engine": {"urls": [teacher_url], "retries": 0},
                "rubrics": ["nano"],
                "auth": {"keys_file": tmp_path / "keys.yaml"},
            }
        )
        app = judge_app(settings)

        @app.post("/v1/bug")
        async def bug(body: dict[str, Any]) -> None:
            fail_with(str(body))

        candidates = [{"id": f"c{index}", "text": f"sekretcandidate {index}"} for index in range(4)]
        body = {"cohort": {"id": "c", "prefix": "sekretprefix", "candidates": candidates}, "detail": True}
        with served(app) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
            wait_until_ready(url)
            for _ in range(4):
                assert http.post("/v1/judge", json=body).status_code in (200, 503)
            assert http.post("/v1/bug", json=body).status_code == 500
            assert http.post("/v1/judge", json={**body, "sekretprefix": 1}).status_code == 422
            assert http.post("/v1/judge", content=b'{"sekretprefix"').status_code == 422
            assert http.get("/v1/sekretprefix").status_code == 404
            assert httpx.post(f"{url}/v1/judge", headers={"X-API-Key": f"{key}x"}, json=body).status_code == 401
            assert not any(secret in http.get("/readyz").text for secret in SECRETS)
    logged = stream.getvalue()
    assert key not in logged
    assert {secret for secret in SECRETS if secret in logged} == (set(SECRETS[:2]) if texts else set())
    assert "engine lost" in logged
    assert "a request failed" in logged


def test_every_request_has_one_line_that_tells_who_what_and_how_long(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.yaml", "alice")
    set_up(LogSettings(), stream := io.StringIO())
    settings = ServiceSettings.model_validate(
        {"engine": {"urls": ["http://127.0.0.1:9"]}, "auth": {"keys_file": tmp_path / "keys.yaml"}}
    )
    with served(judge_app(settings)) as url:
        httpx.get(f"{url}/v1/rubrics", headers={"Authorization": f"Bearer {key}", "X-Request-ID": "mine"})
        httpx.get(f"{url}/v1/rubrics")
        httpx.get(f"{url}/healthz")
    about = [line for line in lines(stream) if line["logger"] == "preceptor_services.web"]
    assert [(line["caller"], line["route"], line["status"]) for line in about] == [
        ("alice", "/v1/rubrics", 200),
        (None, "other", 401),
    ]
    assert about[0]["request_id"] == "mine"
    assert 0 <= about[0]["duration_s"] < 60
