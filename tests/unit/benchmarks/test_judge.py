"""The judge benchmark's own reckoning: what it asks, and what it makes of answers. Neither vLLM nor a service runs."""

from __future__ import annotations

import pytest

from benchmarks.judge import tables
from benchmarks.judge_parts import comparing
from benchmarks.judge_parts.cohorts import Script, Source, judged_by
from benchmarks.judge_parts.rounds import Round, bodies_for
from preceptor_client.contract import JudgeRequest, JudgeResponse

TOKENS = {
    label: number for number, label in enumerate(("A", "B", "tie", "safe", "unsafe", "none", "possible", "definite"))
}


@pytest.fixture(scope="module")
def requests() -> list[JudgeRequest]:
    return Source(0).draw(3, 4)


def test_a_seed_gives_the_same_cohorts_and_all_their_texts_differ(requests: list[JudgeRequest]) -> None:
    assert Source(0).draw(3, 4) == requests
    assert Source(1).draw(3, 4) != requests
    assert len({request.cohort.id for request in requests}) == 3
    assert all(len({candidate.text for candidate in request.cohort.candidates}) == 4 for request in requests)


def test_copies_are_of_whole_texts() -> None:
    (request,) = Source(0).draw(1, 8, copies=2)
    texts = [candidate.text for candidate in request.cohort.candidates]
    assert texts[:4] == texts[4:]
    assert len(set(texts)) == 4


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_direct_client_sends_every_prompt_of_the_judge_once(requests: list[JudgeRequest], size: int) -> None:
    script = Script()
    judged_by(script, requests, "nano")
    bodies = bodies_for(script.asked, TOKENS, "teacher", size)
    assert all(len(body["prompt"]) <= size and body["allowed_token_ids"] for body in bodies)
    sent = sorted(prompt for body in bodies for prompt in body["prompt"])
    assert sent == sorted(prompt.text for prompts in script.asked.values() for prompt in prompts)
    assert len(sent) == 3 * (4 * 3 + 2 * 4)


def test_the_same_answers_give_the_same_scores(requests: list[JudgeRequest]) -> None:
    script = Script()
    first = judged_by(script, requests, "nano")
    safety = next(prompts for generation, prompts in script.asked.items() if "safe" in generation.labels)
    again = judged_by(Script(known={safety[0].text: "unsafe"}), requests, "nano")
    assert comparing.same_scores(first, first) == 1.0
    assert comparing.same_scores(first, again) == 1 - 1 / (3 * 4 * 3)
    assert comparing.agreement(first, again) == {"best": 1.0, "worst": 1.0}
    assert comparing.failed(first) == 0


def test_a_ratio_is_of_rounds_that_ran_side_by_side() -> None:
    def rounds(*seconds: float) -> list[Round]:
        return [Round(each, {}, [], 0) for each in seconds]

    assert comparing.ratio(rounds(1, 10, 3), rounds(1, 5, 1)) == 2


def test_the_page_has_its_tables(requests: list[JudgeRequest]) -> None:
    responses: list[JudgeResponse] = judged_by(Script(), requests, "nano")
    one = Round(2.0, {"vllm": 3.0, "service": 0.1, "client": 0.01}, [0.1, 0.2], 5)
    rates, usage = comparing.rates([one], 3, 36, 60), comparing.usage(responses)
    assert (rates["verdicts_per_s"], rates["cpu_s_per_1000_verdicts"]["vllm"]) == (18, 3.0 / 36 * 1000)
    side = {"cohorts_per_s": 1.0, **usage}
    result = {
        "sizes": {
            "cohorts": 3,
            "candidates": 4,
            "concurrency": 2,
            "large_candidates": 16,
            "questions_per_cohort": 20,
        },
        "service": rates,
        "direct": {**rates, "prompts_per_request": 64, "requests_in_flight": 4},
        "same_scores": 1.0,
        "schedules": {"all_pairs": side, "adaptive": side, "agreement": {"best": 1.0, "worst": 1.0}},
        "cache": {"speedup": 3.0, "again": usage},
        "dedup": {"speedup": 2.0, "equal": usage, "different": usage},
        "votes": {"speedup": 2.0, "one_question": usage, "five_questions": usage},
    }
    made = tables(result)
    assert len(made) == 4
    assert all(len(row) == len(table.columns) for table in made for row in table.rows)
