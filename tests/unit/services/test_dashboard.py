"""The dashboard's routes, without a browser: what is sent, to whom, and with which headers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from board_runs import an_info
from preceptor_client.board import BoardWriter
from preceptor_client.contract import RunList
from preceptor_client.keys import add_key
from preceptor_client.queue import CohortQueue, connect
from preceptor_services.app import judge_app, rewrite_app
from preceptor_services.dashboard.page import POLICY
from preceptor_services.settings import ServiceSettings
from queued import a_task

NO_REDIS = "redis://secret:word@127.0.0.1:1/0"
STATIC = files("preceptor_services.dashboard").joinpath("static")
RUN = an_info()
Open = Callable[..., Any]


@pytest.fixture
async def open_app(redis_url: str) -> AsyncIterator[Open]:
    """`await open_app(make_app, **sections)`: a client of a service's app."""
    async with AsyncExitStack() as stack:

        async def open_one(make_app: Any = judge_app, **sections: Any) -> httpx.AsyncClient:
            settings = {"queue": {"url": redis_url, "namespace": "dashboard"}, **sections}
            app = make_app(ServiceSettings.model_validate(settings))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
            return await stack.enter_async_context(client)

        yield open_one


@pytest.mark.parametrize(("make_app", "service"), [(judge_app, "judge"), (rewrite_app, "rewrite")])
async def test_both_services_have_the_page_and_say_which_they_are(open_app: Open, make_app: Any, service: str) -> None:
    client = await open_app(make_app, dashboard={"judge_url": "http://judge", "rewrite_url": "/"})
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == POLICY
    for name in re.findall(r'"(/dashboard/[^"]+)"', page.text):
        assert (await client.get(name)).status_code == 200
    about = (await client.get("/dashboard/about.json")).json()
    assert about == {"service": service, "keys": False, "judge_url": "http://judge", "rewrite_url": "/"}


async def test_files_are_sent_again_only_when_they_changed_and_no_others_are_sent(open_app: Open) -> None:
    client = await open_app()
    first = await client.get("/dashboard/app.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = await client.get("/dashboard/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("page.py", "..%2fpage.py", "nothing.js", "%2e%2e/%2e%2e/app.py"):
        assert (await client.get(f"/dashboard/{name}")).status_code == 404


async def test_with_keys_names_and_figures_are_open_and_texts_are_not(open_app: Open, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.yaml", "alice")
    closed = ["/v1/runs/sip-1/cohorts", "/v1/rubrics", "/v1/judge"]
    figures = ["/v1/runs", "/v1/runs/sip-1/rows"]
    for also, opened in ((False, ["/", "/dashboard/app.js", *figures]), (True, ["/", "/dashboard/about.json"])):
        client = await open_app(auth={"keys_file": tmp_path / "keys.yaml", "metrics": also})
        assert [(await client.get(path)).status_code for path in closed] == [401, 401, 401]
        assert 401 not in [(await client.get(path)).status_code for path in opened]
        assert [(await client.get(path)).status_code == 401 for path in figures] == [also, also]
        assert (await client.get(closed[0], headers={"X-API-Key": key})).status_code == 404
        assert (await client.get("/dashboard/about.json")).json()["keys"] is True


async def test_runs_are_listed_with_what_they_have_in_the_queue(open_app: Open, redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushall()
        await BoardWriter(redis, RUN.run, namespace="dashboard", rows=1, cohorts=1).write(RUN)
        queue = CohortQueue(redis, namespace="dashboard")
        for part in ("sip-1.aa", "sip-1.bb", "sip-2.aa"):
            await queue.submit(a_task(run=part))
    client = await open_app()
    listed = RunList.model_validate((await client.get("/v1/runs")).json())
    (only,) = listed.runs
    assert only.info == RUN
    assert (only.queue.waiting, listed.queue.waiting, listed.workers) == (2, 3, 0)


async def test_an_unknown_run_a_bad_mark_and_a_redis_that_is_away_are_told(open_app: Open) -> None:
    client = await open_app()
    assert "no run nothing" in (await client.get("/v1/runs/nothing/rows")).json()["detail"]
    assert (await client.get("/v1/runs/nothing/rows?after=x")).status_code == 422
    assert (await client.get("/v1/runs/no~run/rows")).status_code == 422
    away = await open_app(queue={"url": NO_REDIS})
    for path in ("/v1/runs", "/v1/runs/sip-1/rows", "/v1/runs/sip-1/cohorts"):
        told = await away.get(path)
        assert (told.status_code, told.headers["retry-after"]) == (503, "5")
        assert "queue.url" in told.json()["detail"]
        assert "word" not in told.json()["detail"]


async def test_it_can_be_switched_off(open_app: Open) -> None:
    client = await open_app(dashboard={"enabled": False})
    assert [(await client.get(path)).status_code for path in ("/", "/dashboard/app.js", "/v1/runs")] == [404, 404, 404]


def test_the_files_name_no_other_address_and_parse_no_markup() -> None:
    written = {path.name: path.read_text() for path in STATIC.iterdir()}
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= written.keys()
    assert sum(len(text) for text in written.values()) < 120_000
    for name, text in written.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|srcdoc", text), name
        assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"<script(?![^>]*src=)|<style|style=|\son\w+=", text) or not name.endswith(".html"), name
