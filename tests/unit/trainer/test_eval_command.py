"""`preceptor eval` against a judge that answers by a rule: a real server on loopback that speaks the contract."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from preceptor_client.contract import (
    AxisReport,
    Health,
    JudgeRequest,
    JudgeResponse,
    Order,
    Provenance,
    RubricInfo,
    RubricList,
    RubricSpec,
    Sampling,
    Status,
    Usage,
    Verdict,
)
from preceptor_trainer.cli import app
from tiny_policy import WORDS, save_policy

DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"
SIZES = ["--prefix-tokens=8", "--min-prefix-tokens=2", "--suffix-tokens=6"]


def a_rubric(name: str, axis: str, mode: str = "pointwise", reference: str = "unused", *, default: bool) -> RubricInfo:
    spec = {"axis": axis, "mode": mode, "prompt": "?", "labels": {"yes": 1, "no": 0}, "parser": "exact"}
    return RubricInfo.model_validate(
        {"name": f"set/{name}", "hash": "0", "default": default, "spec": {**spec, "reference": reference}}
    )


DEFAULTS = [
    a_rubric("quality", "quality", "pairwise", default=True),
    a_rubric("safety", "safety", default=True),
    a_rubric("factuality", "factuality", reference="required", default=True),
]


@dataclass
class Judge:
    """Scores by `rule(candidate id, text, axis)`; None is a failed verdict."""

    rule: Callable[[str, str, str], float | None] = lambda side, text, axis: float(side == "model")
    ready: bool = True
    rubrics: list[RubricInfo] = field(default_factory=lambda: [*DEFAULTS, a_rubric("strict", "safety", default=False)])
    asked: list[JudgeRequest] = field(default_factory=list)
    status: int = 200
    url: str = ""
    was_asked: threading.Event = field(default_factory=threading.Event)
    together: threading.Barrier | None = None
    """If there is one, an answer waits for as many questions as it wants."""

    def answer(self, request: JudgeRequest) -> JudgeResponse:
        report = AxisReport(
            provenance=Provenance(teacher="rule", revision="1", rubric="r", rubric_hash="0", sampling=Sampling()),
            usage=Usage(calls=2, prompt_tokens=10, completion_tokens=2),
        )
        verdicts = []
        for axis in request.axes:
            for candidate in request.cohort.candidates:
                score = self.rule(candidate.id, candidate.text, axis)
                status = Status.FAILED if score is None else Status.OK
                reason = "no answer" if score is None else None
                verdicts.append(
                    Verdict(candidate_id=candidate.id, axis=axis, status=status, score=score, reason=reason)
                )
        return JudgeResponse(
            cohort_id=request.cohort.id,
            verdicts=tuple(verdicts),
            axes=dict.fromkeys(request.axes, report),
            elapsed_s=0.0,
        )


@pytest.fixture
def judge() -> Iterator[Judge]:
    judge = Judge()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/rubrics"):
                self._send(200, RubricList(rubrics=tuple(judge.rubrics)).model_dump_json())
                return
            health = Health(status="ok") if judge.ready else Health(status="starting", detail="no teacher yet")
            self._send(200 if judge.ready else 503, health.model_dump_json())

        def do_POST(self) -> None:
            request = JudgeRequest.model_validate_json(self.rfile.read(int(self.headers["Content-Length"])))
            judge.asked.append(request)
            judge.was_asked.set()
            if judge.together:
                try:
                    judge.together.wait(timeout=60)
                except threading.BrokenBarrierError:
                    return  # the test is over, and whoever asked is gone
            if judge.status == 200:
                self._send(200, judge.answer(request).model_dump_json())
            else:
                self._send(judge.status, json.dumps({"title": "No", "status": judge.status, "detail": "not today"}))

        def _send(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was interrupted hangs up: that is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        judge.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "policy")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "held-out.jsonl"
    texts = (" ".join(f"w{(number + 3 * place) % 58 + 2}" for place in range(20)) for number in range(30))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_a_model_is_measured_against_the_original_suffixes(judge: Judge, policy: Path, corpus: Path) -> None:
    result = evaluate(policy, "--data", corpus, *SIZES, "--windows=20", "--judge-url", judge.url, "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert (shown["windows"], shown["rival"]) == (20, "the original suffix")
    assert set(shown["axes"]) == {"quality", "safety", "factuality"}
    assert shown["axes"]["safety"]["model"]["value"] == shown["overall"]["win_rate"]["value"] == 1.0
    assert shown["verdicts"] == {"ok": 120, "abstained": 0, "failed": 0}
    assert (shown["judge"]["calls"], shown["judge"]["tokens"]) == (120, 720)
    documents = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    for asked in judge.asked:
        ours, rival = asked.cohort.candidates
        assert rival.text == asked.cohort.reference
        assert any(f"{asked.cohort.prefix} {rival.text}" in document for document in documents)
        assert len(ours.text.split()) == len(rival.text.split()) == 6
        assert 2 <= len(asked.cohort.prefix.split()) <= 8


def test_the_same_seed_asks_the_same_questions_and_another_one_does_not(
    judge: Judge, policy: Path, corpus: Path
) -> None:
    asked = []
    for seed in (1, 1, 2):
        judge.asked.clear()
        assert evaluate(policy, "--data", corpus, *SIZES, "--judge-url", judge.url, f"--seed={seed}").exit_code == 0
        asked.append({request.cohort.id: request for request in judge.asked})
    assert asked[0] == asked[1] != asked[2]


def test_a_control_token_is_for_the_model_and_not_for_the_judge(judge: Judge, policy: Path, corpus: Path) -> None:
    asked = []
    for arguments in ([], ["--control=w50"]):
        judge.asked.clear()
        result = evaluate(policy, "--data", corpus, *SIZES, *arguments, "--judge-url", judge.url, "--json")
        assert result.exit_code == 0, result.stderr
        asked.append({each.cohort.id: each.cohort for each in judge.asked})
    assert json.loads(result.stdout)["control"] == "w50"
    plain, controlled = asked
    assert {id: cohort.prefix for id, cohort in plain.items()} == {id: c.prefix for id, c in controlled.items()}
    assert plain != controlled, "it wrote something else"


def test_two_models_see_the_same_windows(judge: Judge, policy: Path, corpus: Path, tmp_path: Path) -> None:
    other = save_policy(tmp_path / "other", seed=1)
    samples = tmp_path / "samples.jsonl"
    options = [*SIZES, "--judge-url", judge.url, "--axes=safety", "--json", "--samples", samples]
    result = evaluate(policy, "--data", corpus, "--against", other, *options)
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert (shown["windows"], shown["rival"], set(shown["axes"])) == (30, str(other), {"safety"})
    kept = [json.loads(line) for line in samples.read_text().splitlines()]
    cohorts = sorted((asked.cohort for asked in judge.asked), key=lambda cohort: int(cohort.id.removeprefix("window-")))
    assert [line["prefix"] for line in kept] == [cohort.prefix for cohort in cohorts]
    for line, cohort in zip(kept, cohorts, strict=True):
        assert [line["model"], line["rival"]] == [candidate.text for candidate in cohort.candidates]
        assert line["original"] == cohort.reference
    texts = [[candidate.text for candidate in asked.cohort.candidates] for asked in judge.asked]
    assert all(ours != theirs for ours, theirs in texts)
    assert all(asked.cohort.reference not in texts[n] for n, asked in enumerate(judge.asked))


def test_a_rival_reads_the_windows_with_a_tokenizer_of_its_own(
    judge: Judge, policy: Path, corpus: Path, tmp_path: Path
) -> None:
    other = save_policy(tmp_path / "other", seed=1)
    backwards = Tokenizer(WordLevel({word: id for id, word in enumerate(reversed(WORDS))}, unk_token="<unk>"))
    backwards.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backwards, unk_token="<unk>").save_pretrained(other)
    written = []
    for side, arguments in ((1, [policy, "--against", other]), (0, [other])):
        judge.asked.clear()
        assert evaluate(*arguments, "--data", corpus, *SIZES, "--judge-url", judge.url).exit_code == 0
        written.append({asked.cohort.id: asked.cohort.candidates[side].text for asked in judge.asked})
    as_rival, alone = written
    assert as_rival == alone
    assert len(set(alone.values())) > 20


def test_failed_verdicts_are_counted_and_never_averaged(judge: Judge, policy: Path, corpus: Path) -> None:
    judge.rule = lambda side, text, axis: None if axis == "safety" and side == "model" else 1.0
    result = evaluate(policy, "--data", corpus, *SIZES, "--windows=10", "--judge-url", judge.url)
    assert result.exit_code == 0, result.stderr
    assert "0 abstained, 10 failed" in result.stdout
    assert "10 x no answer" in result.stdout
    safety = next(line for line in result.stdout.splitlines() if "safety" in line)
    assert "0.000" not in safety


@pytest.mark.parametrize(
    ("change", "arguments", "status", "message"),
    [
        ({}, ["/nowhere", "--data", "{corpus}"], 1, "cannot load the model /nowhere"),
        ({}, ["{policy}", "--data", "/nowhere"], 1, "/nowhere: no such file or folder; set --data"),
        ({}, ["{policy}", "--data", "{empty}"], 1, "holds no document"),
        ({}, ["{policy}", "--data", "{corpus}", "--text-field=body"], 1, "set --text-field to one of: text"),
        ({}, ["{policy}", "--data", "{corpus}", "--suffix-tokens=40"], 1, "lower --suffix-tokens or --min-prefix"),
        ({}, ["{policy}", "--data", "{corpus}", "--source=csv"], 2, "data.source"),
        ({}, ["{policy}", "--data", "{corpus}", "--axes=Good,Bad"], 2, "axes"),
        ({}, ["{policy}", "--data", "{corpus}", "--axes="], 2, "axes"),
        ({}, ["{policy}", "--data", "{corpus}", "--samples=/nowhere/x"], 1, "cannot write to /nowhere/x: No such file"),
        ({}, ["{policy}"], 2, "give one of --data, --prompts, --lm-eval"),
        ({}, ["{policy}", "--data", "{corpus}", "--prompts={corpus}"], 2, "not --data and --prompts"),
        ({}, ["{policy}", "--lm-eval=x", "--against={policy}"], 2, "leave --against out"),
        ({}, ["{policy}", "--lm-eval=x", "--control=w5"], 2, "leave --control out"),
        ({}, ["{policy}", "--data", "{corpus}", "--control=<safe>"], 1, "<safe> is not one token of the policy's"),
        ({}, ["{policy}", "--data", "{corpus}", "--axes=wit"], 1, "no rubric for wit, only for quality, safety"),
        ({}, ["{policy}", "--data", "{corpus}", "--rubric=set/wit"], 1, "which has set/quality, set/safety"),
        ({}, ["{policy}", "--data", "{corpus}", "--rubric={corpus}"], 1, "--rubric {corpus}:"),
        ({}, ["{policy}", "--prompts", "{corpus}", "--axes=quality"], 1, "there is one model: set --against"),
        ({}, ["{policy}", "--prompts", "{corpus}", "--axes=factuality"], 1, "its rubric needs a reference"),
        ({}, ["{policy}", "--prompts", "/nowhere"], 1, "/nowhere: no such file or folder; set --prompts"),
        ({}, ["{policy}", "--prompts", "{blank}"], 1, "prompt 2 is empty: take it out"),
        ({}, ["{policy}", "--prompts", "{long}", "--prefix-tokens=60"], 1, "lower --prefix"),
        ({}, ["{policy}", "--data", "{corpus}", "--prefix-tokens=3", "--min-prefix-tokens=4"], 2, "is above prefix"),
        ({}, ["{policy}", "--data", "{long}", "--prefix-tokens=60", "--min-prefix-tokens=60"], 1, "lower --prefix"),
        ({"ready": False}, ["{policy}", "--data", "{corpus}"], 1, "is starting (no teacher yet): start it"),
        ({"status": 422}, ["{policy}", "--data", "{corpus}"], 1, "not today"),
        (
            {"rule": lambda side, text, axis: None},
            ["{policy}", "--data", "{corpus}"],
            1,
            "none of the 180 verdicts has a score; most often: no answer",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    judge: Judge,
    policy: Path,
    corpus: Path,
    tmp_path: Path,
    change: dict[str, object],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    for name, value in change.items():
        setattr(judge, name, value)
    places = {name: tmp_path / f"{name}.jsonl" for name in ("empty", "long", "blank")}
    places["blank"].write_text('{"text": "w5"}\n{"text": " "}\n')
    places["empty"].write_text("")
    places["long"].write_text(json.dumps({"text": "w5 " * 200}) + "\n")
    given = [argument.format(policy=policy, corpus=corpus, **places) for argument in arguments]
    options = {option.partition("=")[0] for option in given}
    given += [size for size in SIZES if size.partition("=")[0] not in options]
    result = evaluate(*given, "--judge-url", judge.url)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("preceptor eval: ")
    assert message.format(corpus=corpus) in lines[0]


def test_the_examples_of_the_docs_hold(judge: Judge, policy: Path, corpus: Path, tmp_path: Path) -> None:
    judge.rubrics.append(a_rubric("quality_ranking", "quality", "pairwise", default=False))
    file = tmp_path / "brevity.yaml"
    file.write_text("{axis: brevity, mode: pointwise, prompt: '?', labels: {a: 1, b: 0}, parser: exact}")
    places = {
        "MODEL": policy,
        "runs/sip/final": policy,
        "runs/nll/final": save_policy(tmp_path / "other", seed=1),
        "held-out.jsonl": corpus,
        "prompts.jsonl": corpus,
        "instruct/quality_ranking": "set/quality_ranking",
        "brevity.yaml": file,
    }
    lines = (line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("preceptor eval "))
    examples = [line.partition("#")[0].split()[2:] for line in lines if "--lm-eval" not in line]
    assert len(examples) == 4
    for example in examples:
        given = [places.get(word, word) for word in example]
        result = evaluate(*given, *SIZES, "--windows=3", "--judge-url", judge.url)
        assert result.exit_code == 0, result.stderr


def test_prompts_are_continued_and_scored_on_the_axes_that_need_nothing_to_compare_with(
    judge: Judge, policy: Path, tmp_path: Path
) -> None:
    judge.rule = lambda side, text, axis: float("w7" in text)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"text": f"w{n} w{n + 1} w{n + 2}"}) + "\n" for n in range(2, 42)))
    arguments = [policy, "--prompts", prompts, "--prefix-tokens=2", "--suffix-tokens=6", "--judge-url", judge.url]
    result = evaluate(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert (shown["windows"], shown["rival"], set(shown["axes"])) == (40, None, {"safety"})
    assert shown["left_out"].keys() == {"quality", "factuality"}
    asked = {request.cohort.id: request.cohort for request in judge.asked}
    for number in range(40):
        cohort = asked[f"window-{number}"]
        assert (cohort.prefix, cohort.reference) == (f"w{number + 3} w{number + 4}", None)
        assert [(each.id, len(each.text.split())) for each in cohort.candidates] == [("model", 6)]
    share = sum("w7" in cohort.candidates[0].text for cohort in asked.values()) / 40
    safety = shown["axes"]["safety"]
    assert (safety["model"]["value"], safety["rival"], safety["win_rate"]) == (pytest.approx(share), None, None)
    table = evaluate(*arguments)
    assert "factuality is left out" in table.stdout
    assert "win rate" not in table.stdout


def test_two_models_are_compared_on_prompts(judge: Judge, policy: Path, corpus: Path, tmp_path: Path) -> None:
    other = save_policy(tmp_path / "other", seed=1)
    arguments = [policy, "--prompts", corpus, "--against", other, "--suffix-tokens=6", "--windows=10"]
    result = evaluate(*arguments, "--judge-url", judge.url, "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert set(shown["axes"]) == {"quality", "safety"}
    assert shown["axes"]["quality"]["win_rate"]["value"] == 1.0
    assert all(asked.cohort.reference is None and len(asked.cohort.candidates) == 2 for asked in judge.asked)


def test_any_rubric_may_judge_by_name_or_from_a_file_and_pairs_are_shown_in_both_orders(
    judge: Judge, policy: Path, corpus: Path, tmp_path: Path
) -> None:
    file = tmp_path / "brevity.yaml"
    file.write_text("{axis: brevity, mode: pairwise, prompt: '?', labels: {a: 1, b: 0}, parser: exact}")
    rubrics = ["--rubric", file, "--rubric=set/strict"]
    result = evaluate(policy, "--data", corpus, *SIZES, "--windows=5", *rubrics, "--judge-url", judge.url, "--json")
    assert result.exit_code == 0, result.stderr
    assert set(json.loads(result.stdout)["axes"]) == {"brevity", "safety"}
    for asked in judge.asked:
        assert (asked.axes, asked.order) == (("brevity", "safety"), Order.BOTH)
        assert asked.rubrics["safety"] == "set/strict"
        assert isinstance(asked.rubrics["brevity"], RubricSpec)
    judge.asked.clear()
    more = ["--axes=quality", "--rubric=set/strict", "--judge-url", judge.url]
    assert evaluate(policy, "--data", corpus, *SIZES, "--windows=5", *more).exit_code == 0
    assert judge.asked[0].axes == ("quality", "safety")


def test_a_judge_that_is_not_there_is_told_before_anything_is_sampled(policy: Path, corpus: Path) -> None:
    result = evaluate(policy, "--data", corpus, *SIZES, "--judge-url=http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "the judge at http://127.0.0.1:9 is unavailable" in result.stderr


def test_as_many_cohorts_are_at_the_judge_as_asked_for_and_no_more(judge: Judge, policy: Path, corpus: Path) -> None:
    asked_by_then = []
    judge.together = threading.Barrier(3, action=lambda: asked_by_then.append(len(judge.asked)))
    arguments = [policy, "--data", corpus, *SIZES, "--windows=12", "--concurrency=3", "--judge-url", judge.url]
    assert evaluate(*arguments).exit_code == 0
    assert asked_by_then == [3, 6, 9, 12]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_one_line(
    judge: Judge, policy: Path, corpus: Path, number: signal.Signals, status: int
) -> None:
    judge.together = threading.Barrier(1000)  # no answer ever
    command = [sys.executable, "-m", "preceptor_trainer", "eval", str(policy), "--data", str(corpus), *SIZES]
    command += ["--judge-url", judge.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert judge.was_asked.wait(timeout=60)
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            judge.together.abort()
    assert process.returncode == status
    assert (output, errors.strip()) == ("", f"preceptor eval: stopped by {number.name}")
