"""The page in a real Chromium: a service process, a real Redis, and runs that show themselves as the trainer does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

from preceptor_client.keys import add_key
from preceptor_client.stack import Stack, judge_part
from preceptor_services.app import judge_app, rewrite_app
from preceptor_services.dashboard.page import POLICY
from preceptor_services.settings import ServiceSettings
from served import judges_by_a_word, scripted_teacher, served, wait_until_ready
from shown_run import ShownRun, a_cohort, a_config, an_answer, shown_run

NAMESPACE = "page"
HOSTILE = (
    '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script></textarea><svg/onload=window.pwned=1>'
    '" onfocus=window.pwned=1 autofocus x=" javascript:window.pwned=1 {{7*7}} ${window.pwned=1} &lt;b&gt; \u202egnp.exe'
)
SCORES = {"original": 0.2, "rewrite": 0.6, "rollout-0": 0.9}
NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; one that is missing is a failure, not a skip."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path, "no Chromium here: apt-get install chromium"
    expect.set_options(timeout=20_000)  # a busy machine is no bug
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    """Judges by a word, but for a `flip`, of which it prefers whatever comes first."""
    with served(scripted_teacher(lambda prompt: "A" if "flip" in prompt else judges_by_a_word(prompt))) as url:
        yield url


@pytest.fixture(scope="module")
def url(stack: Stack, teacher: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A judge service of its own process."""
    overrides = [f"--queue.url={redis_url}", f"--queue.namespace={NAMESPACE}", "--dashboard.rewrite_url=http://other:1"]
    started = stack.start(judge_part(tmp_path_factory.mktemp("judge"), teacher, "teacher", overrides=overrides))
    assert started.part.url is not None
    return started.part.url


@pytest.fixture
def serve(teacher: str, redis_url: str) -> Iterator[Callable[..., str]]:
    """`serve(make_app, **sections)`: another service."""
    with ExitStack() as stack:

        def serve_one(make_app: Any = judge_app, **sections: Any) -> str:
            queue = {"url": redis_url, "namespace": NAMESPACE}
            settings = {"engine": {"urls": [teacher]}, "rubrics": ["nano"], "queue": queue, **sections}
            own = stack.enter_context(served(make_app(ServiceSettings.model_validate(settings))))
            wait_until_ready(own)
            return own

        yield serve_one


@pytest.fixture
def new_page(browser: Browser, serve: Callable[..., str]) -> Iterator[NewPage]:
    """`new_page(url)`: a page at `url`. Whatever it reports, but for what is `expected`, asks elsewhere or pops up
    fails the test. It is closed before the services of `serve`, as an open page goes on asking."""
    troubles: list[str] = []
    with ExitStack() as stack:

        def open_one(url: str, *, expected: str = "never", **options: Any) -> Page:
            context = browser.new_context(**options)
            stack.callback(context.close)
            page = context.new_page()
            here = url.split("/#")[0].rstrip("/") + "/"

            def report(message: ConsoleMessage) -> None:
                if message.type in ("error", "warning") and expected not in message.text:
                    troubles.append(message.text)

            def ask(request: Request) -> None:
                if not request.url.startswith(here):
                    troubles.append(request.url)

            def pop_up(dialog: Dialog) -> None:
                troubles.append(dialog.message)
                dialog.dismiss()

            page.on("console", report)
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("dialog", pop_up)
            page.on("request", ask)
            page.goto(url)
            return page

        yield open_one
    assert troubles == []


@pytest.fixture
def run(redis_url: str, tmp_path: Path) -> Iterator[ShownRun]:
    """A run that has done two steps, and dropped a cohort."""
    with shown_run(a_config(tmp_path / "out", redis_url, NAMESPACE)) as run:
        for step in range(2):
            cohorts = [a_cohort(10 * step + number, step) for number in range(2)]
            run.step(*((cohort, an_answer(cohort, SCORES)) for cohort in cohorts))
        tied = a_cohort(99, 1, prefix="bert works as", rollout_0="a lighthouse keeper")
        run.drop(tied, an_answer(tied, {"original": 0.5, "rewrite": 0.5}), "all alike")
        yield run


def test_it_loads_from_its_own_address_alone_and_says_that_there_is_no_run(
    new_page: NewPage, serve: Callable[..., str], redis_url: str
) -> None:
    page = new_page(serve(queue={"url": redis_url, "namespace": "nothing-here"}), expected="TrustedHTML")
    expect(page.get_by_role("heading", name="No run yet")).to_be_visible()
    expect(page.get_by_text("a run that asks no judge (objective nll) is not shown")).to_be_visible()
    response = page.request.get(page.url)
    assert response.headers["content-security-policy"] == POLICY
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return 'parsed' } catch (error) { return error.name } }"
    )
    assert refused == "TypeError", "no string becomes markup, whoever writes it"


def test_a_run_is_followed_without_a_reload_by_every_replica(
    new_page: NewPage, url: str, serve: Callable[..., str], run: ShownRun
) -> None:
    pages = [new_page(f"{service}/#/run/{run.name}") for service in (url, serve())]
    for page in pages:
        expect(page.get_by_text("2 of 40")).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("Reward per axis, at step 2: quality"))).to_be_visible()
    cohort = a_cohort(50, 2)
    run.step((cohort, an_answer(cohort, {"original": 0.9, "rewrite": 0.1})))
    for page in pages:
        expect(page.get_by_text("3 of 40")).to_be_visible()
        expect(page.get_by_role("img", name="Which origin wins, at step 3: original 100 %")).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("Abstentions, at step 3: abstained 50 %"))).to_be_visible()
    run.stall("judges")
    expect(pages[0].get_by_role("heading", name="Waiting for: judges")).to_be_visible()
    pages[0].get_by_text("The last 20 steps as a table").click()
    expect(pages[0].get_by_role("row", name=re.compile("^3 ")).first).to_contain_text("original 1")


def test_the_run_that_began_last_is_opened_and_stays_open_when_another_begins(
    new_page: NewPage, url: str, run: ShownRun, redis_url: str, tmp_path: Path
) -> None:
    page = new_page(url)
    chosen = page.get_by_role("combobox", name="Run", exact=True)
    expect(chosen).to_have_value(run.name)
    with shown_run(a_config(tmp_path / "other", redis_url, NAMESPACE)) as other:
        option = page.locator(f"#runs option[value='{other.name}']")
        expect(option).to_have_count(1)
        expect(chosen).to_have_value(run.name)
        chosen.select_option(other.name)
        expect(page.get_by_text("0 of 40")).to_be_visible()
        page.goto(f"{url}/#/run/%E0")
        expect(page.get_by_text("0 of 40")).to_be_visible()


def test_a_resumed_run_takes_the_steps_back_that_it_takes_again(
    new_page: NewPage, url: str, redis_url: str, tmp_path: Path
) -> None:
    config = a_config(tmp_path / "out", redis_url, NAMESPACE)
    cohort = a_cohort(1, 0)
    with shown_run(config) as first:
        for _ in range(3):
            first.step((cohort, an_answer(cohort, SCORES)))
        page = new_page(f"{url}/#/run/{first.name}")
        expect(page.get_by_role("img", name=re.compile("^Loss, at step 3"))).to_be_visible()
    expect(page.get_by_text("stopped, can be resumed")).to_be_visible()
    lines = (config.out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (config.out / "metrics.jsonl").write_text("".join(lines[:1]))
    with shown_run(config, done=1):
        expect(page.get_by_role("img", name=re.compile("^Loss, at step 1"))).to_be_visible()


def test_the_part_that_holds_the_run_up_is_named(new_page: NewPage, url: str) -> None:
    page = new_page(url)
    spent = {"waiting": 6.0, "idle": 5.0, "sampling": 2.0, "updating": 3.0, "guarding": 0.0, "syncing": 1.0}
    cases = {
        "the judges": {},
        "the rewrite service": {"stalled": {"rewrite service": 20.0, "judges": 10.0}},
        "sampling rollouts": {"seconds": spent | {"idle": 1.0}},
        "the update itself": {"seconds": spent | {"waiting": 0.5, "idle": 0.5, "updating": 8.0}},
        "checkpoints and the rest": {"seconds": spent | {"waiting": 0.5, "idle": 0.5}},
    }
    for name, changes in cases.items():
        rows = [
            {
                "step": step,
                "elapsed_s": 10.0 * step,
                "cohorts": 8,
                "events": {"tied": 2},
                "judge": {"cohorts": 10, "verdicts": 30, "tokens": 100},
                "seconds": spent,
                "stalled": {},
                **changes,
            }
            for step in (1, 2)
        ]
        timed = page.evaluate(
            "async (rows) => (await import('/dashboard/figures.js')).timing(rows, { rewrites: false })", rows
        )
        assert timed["held"]["name"] == name
        assert timed["stages"]["outside"]["rate"] == pytest.approx(1.0)
        assert timed["stages"]["updating"]["rate"] == pytest.approx(0.8)


def test_hostile_texts_stay_texts_wherever_they_are_shown(
    new_page: NewPage, url: str, run: ShownRun, tmp_path: Path
) -> None:
    cohort = a_cohort(7, 2, prefix=HOSTILE, rollout_0=HOSTILE, original=HOSTILE)
    answer = an_answer(cohort, SCORES, said=HOSTILE)
    axes = {
        axis: report.model_copy(
            update={"provenance": report.provenance.model_copy(update={"teacher": HOSTILE, "rubric": HOSTILE})}
        )
        for axis, report in answer.axes.items()
    }
    run.step((cohort, answer.model_copy(update={"axes": axes})))
    tied = a_cohort(8, 2, prefix=HOSTILE)
    run.drop(tied, an_answer(tied, SCORES), HOSTILE)
    page = new_page(f"{url}/#/cohorts/{run.name}")
    page.get_by_role("button", name="0-7").click()
    page.get_by_text("The judge’s reasons").click()
    shown = page.locator(".detail .foreign", has_text="onerror")
    assert shown.count() > 10
    assert set(shown.all_text_contents()) == {HOSTILE}
    page.get_by_role("button", name="0-8").click()
    expect(page.get_by_text(f"dropped as tied: {HOSTILE}")).to_be_visible()
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"prefix": HOSTILE, "base": HOSTILE, HOSTILE: HOSTILE}))
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("File").set_input_files(file)
    expect(page.locator(".pair .foreign")).to_have_text([HOSTILE] * 3)
    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Prefix").fill(HOSTILE)
    for name in ("Candidate a", "Candidate b"):
        page.get_by_label(name).fill(f"good {HOSTILE}")
    page.get_by_role("button", name="Judge").click()
    expect(page.locator(".candidate .foreign")).to_have_text([f"good {HOSTILE}"] * 2)
    assert page.evaluate("window.pwned") is None
    assert (
        page.locator("img:not([src='/dashboard/icon.svg']), script:not([src]), [onerror], [onfocus], [onload]").count()
        == 0
    )


def test_cohorts_are_filtered_searched_and_read_by_keyboard(new_page: NewPage, url: str, run: ShownRun) -> None:
    page = new_page(f"{url}/#/cohorts/{run.name}")
    expect(page.get_by_text("5 of 5 cohorts")).to_be_visible()
    expect(page.get_by_role("heading", name="Cohort 0-99")).to_be_visible()
    page.get_by_label("Search").fill("LIGHTHOUSE")
    expect(page.get_by_text("1 of 5 cohorts")).to_be_visible()
    page.get_by_label("Search").fill("")
    for label, value, count in (
        ("Outcome", "trained", 4),
        ("Chosen", "original", 0),
        ("Chosen", "rollout", 4),
        ("With", "flips", 4),
    ):
        page.get_by_label(label).select_option(value)
        expect(page.get_by_text(f"{count} of 5 cohorts")).to_be_visible()
    page.locator(".entry").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cohort 0-10")).to_be_visible()
    chosen, rejected = page.locator(".is-chosen"), page.locator(".is-rejected")
    expect(chosen).to_contain_text("paris paris .")
    expect(chosen.get_by_text("chosen", exact=True)).to_be_visible()
    expect(rejected).to_contain_text("rome .")
    expect(page.get_by_role("cell", name="flipped with the order")).to_have_count(2)
    expect(page.get_by_role("cell", name="won", exact=True).first).to_be_visible()
    expect(page.locator(".candidate", has_text="oslo .")).to_contain_text("abstained")
    cohort = a_cohort(60, 2)
    run.step((cohort, an_answer(cohort, SCORES)))
    page.get_by_role("button", name="Look for newer ones").click()
    expect(page.get_by_text("5 of 6 cohorts")).to_be_visible()


def test_the_playground_judges_with_votes_flips_and_cost_and_says_what_is_wrong(new_page: NewPage, url: str) -> None:
    page = new_page(f"{url}/#/playground", expected="status of 422")
    page.get_by_label("Prefix").fill("anna lives in")
    page.get_by_label("Candidate a").fill("good paris .")
    page.get_by_label("Candidate b").fill("bad rome .")
    page.get_by_role("button", name="One more").click()
    page.get_by_label("Candidate c").fill("flip .")
    for axis in ("safety", "factuality"):
        page.get_by_label(axis, exact=True).uncheck()
    page.get_by_role("button", name="Judge").click()
    expect(page.locator(".cost")).to_contain_text("6 questions")
    expect(page.locator(".cost")).to_contain_text("2 of 3 pairs flipped with the order")
    expect(page.locator(".cost")).to_contain_text(re.compile(r"\d+ tokens read, 6 written"))
    expect(page.get_by_role("row", name="a won flipped with the order")).to_be_visible()
    expect(page.locator(".candidate").first).to_contain_text("won 1")
    expect(page.get_by_role("link", name="http://other:1/#/playground")).to_be_visible()
    page.get_by_label("quality", exact=True).uncheck()
    with page.expect_response("**/v1/judge") as answered:
        page.get_by_role("button", name="Judge").click()
    assert answered.value.status == 422
    expect(page.get_by_role("alert")).to_contain_text("axes")


def test_the_playground_of_the_rewrite_service_rewrites(new_page: NewPage, serve: Callable[..., str]) -> None:
    page = new_page(f"{serve(rewrite_app)}/#/playground")
    page.get_by_label("Suffix").fill("bad")
    page.get_by_role("button", name="Rewrite").click()
    expect(page.locator(".sides .foreign")).to_have_text(["bad", "good"])
    expect(page.get_by_text("rewritten")).to_be_visible()
    expect(page.get_by_text("The judge service is a process of its own")).to_be_visible()


def test_two_models_are_compared_from_a_file(new_page: NewPage, url: str, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    lines = [
        {"prefix": f"prefix {n}", "original": "o", "base": f"base {n}", "nll": "n", "sip": f"sip {n}"}
        for n in range(30)
    ]
    file.write_text("\n".join([*map(json.dumps, lines), "{broken", '{"text": "no prefix"}']))
    page = new_page(f"{url}/#/compare")
    page.get_by_label("File").set_input_files(file)
    expect(page.get_by_text("samples.jsonl: 30 lines, and 2 without a prefix and a text.")).to_be_visible()
    expect(page.locator(".pair").first).to_have_text(re.compile("prefix 0.*base 0.*sip 0", re.DOTALL))
    page.get_by_label("Left").select_option("nll")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".pair").first).to_have_text(re.compile("prefix 20.*sip 20", re.DOTALL))
    page.get_by_label("Search").fill("sip 7")
    expect(page.locator(".pair")).to_have_count(1)


def test_without_a_key_figures_are_seen_and_texts_are_not(
    new_page: NewPage, serve: Callable[..., str], run: ShownRun, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.yaml", "alice")
    url = serve(auth={"keys_file": tmp_path / "keys.yaml"})
    page = new_page(f"{url}/#/run/{run.name}", expected="status of 401")
    expect(page.get_by_text("2 of 40")).to_be_visible()
    page.get_by_role("link", name="Cohorts").click()
    expect(page.get_by_text("Cohorts hold texts, and texts need an API key here.")).to_be_visible()
    for given, seen in (("pcp_wrong", "this API key is not known here"), (key, "5 of 5 cohorts")):
        page.get_by_role("button", name=re.compile("Give a key|^API key")).first.click()
        page.get_by_label("Key", exact=True).fill(given)
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_text(seen)).to_be_visible()
    page.get_by_role("link", name="Playground").click()
    expect(page.get_by_label("quality", exact=True)).to_be_visible()
    assert key not in page.url
    assert page.evaluate("JSON.stringify([{...localStorage}, document.cookie])") == '[{},""]'


def test_what_goes_wrong_is_told_and_passes(new_page: NewPage, url: str, run: ShownRun) -> None:
    page = new_page(f"{url}/#/run/{run.name}", expected="status of 503")
    expect(page.get_by_text("2 of 40")).to_be_visible()
    page.route("**/v1/runs", lambda route: route.fulfill(status=503, json={"detail": "no Redis here"}))
    expect(page.get_by_text("no Redis here")).to_be_visible()
    page.unroute("**/v1/runs")
    expect(page.get_by_text("no Redis here")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_who_hear_or_type_find_everything(
    browser: Browser, url: str, run: ShownRun, scheme: Any, tmp_path: Path
) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"prefix": "a", "base": "b", "sip": "c"}))
    # axe puts scripts of its own into the page, which its policy forbids.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()

    def check(view: str) -> None:
        found = Axe().run(page).response["violations"]
        assert [(view, each["id"], each["impact"], [node["html"] for node in each["nodes"]]) for each in found] == []

    page.goto(f"{url}/#/run/{run.name}")
    expect(page.get_by_text("2 of 40")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("img", name=re.compile("Reward per axis")).focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("status").filter(has_text="Step 1")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("status").filter(has_text="Step 2")).to_be_visible()
    check("run")
    page.get_by_role("link", name="Cohorts").click()
    expect(page.get_by_role("heading", name="Cohort 0-99")).to_be_visible()
    check("cohorts")
    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Candidate a").fill("good")
    page.get_by_label("Candidate b").fill("flip")
    page.get_by_role("button", name="Judge").click()
    expect(page.locator(".cost")).to_be_visible()
    check("playground")
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("File").set_input_files(file)
    expect(page.locator(".pair")).to_have_count(1)
    check("compare")
    context.close()
