from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest

from preceptor_client.contract import JudgeRequest, JudgeResponse, Status
from preceptor_services.engine import Engine
from preceptor_services.judging import Judge
from preceptor_services.metrics import Metrics
from preceptor_services.rubrics import load_rubrics
from preceptor_services.settings import JudgingSettings

Ask = Callable[..., Awaitable[JudgeResponse]]
WORTH = {"bad": 0, "fair": 1, "good": 2}


def shown(prompt: str) -> list[str]:
    """The candidates in the order of the prompt."""
    return re.findall(r"Continuation \d+:\n\[begin \w+\]\n(.*)\n\[end", prompt)


def ranking(prompt: str) -> str:
    texts = shown(prompt)
    order = sorted(range(len(texts)), key=lambda place: -WORTH[texts[place].split()[0]])
    return json.dumps({"reasoning": "r", "ranking": [str(place + 1) for place in order]})


def best(prompt: str) -> str:
    texts = shown(prompt)
    place = max(range(len(texts)), key=lambda place: WORTH[texts[place].split()[0]])
    return json.dumps({"reasoning": "r", "verdict": str(place + 1)})


@pytest.fixture
def ask(open_engine: Callable[..., Awaitable[Engine]], metrics: Metrics, faulty_server: type) -> Ask:
    async def ask_one(answer: Callable[[str], str], mode: str, *texts: str, **fields: object) -> JudgeResponse:
        engine = await open_engine(faulty_server(answer=answer), retries=0)
        judge = Judge(engine, load_rubrics("instruct"), JudgingSettings(), metrics)
        candidates = [{"id": f"c{number}", "text": text} for number, text in enumerate(texts)]
        return await judge.judge(
            JudgeRequest.model_validate(
                {
                    "cohort": {"id": "cohort", "prefix": "p", "candidates": candidates},
                    "axes": ["quality"],
                    "rubrics": {"quality": f"instruct/quality_{mode}"},
                    **fields,
                }
            )
        )

    return ask_one


def scores(response: JudgeResponse) -> list[float | None]:
    return [verdict.score for verdict in response.verdicts]


async def test_a_ranking_gives_every_candidate_its_place(ask: Ask) -> None:
    response = await ask(ranking, "ranking", "fair", "bad", "good", detail=True)
    assert scores(response) == [0.5, 0.0, 1.0]
    assert response.verdicts[2].votes.counts == {"placed 1": 2}
    assert response.verdicts[2].rationale == "r"
    assert response.axes["quality"].position_consistency == 1.0
    assert response.usage.calls == 2


async def test_best_of_names_one(ask: Ask) -> None:
    response = await ask(best, "best_of", "fair", "bad", "good")
    assert scores(response) == [0.0, 0.0, 1.0]
    assert response.verdicts[0].votes.counts == {"not best": 2}


@pytest.mark.parametrize(
    ("mode", "answer", "expected"),
    [
        ("ranking", '{"reasoning": "", "ranking": ["1", "2", "3"]}', [0.5, 0.5, 0.5]),
        ("best_of", '{"reasoning": "", "verdict": "1"}', [0.5, 0.0, 0.5]),
    ],
)
async def test_a_judge_that_goes_by_place_prefers_nobody(
    ask: Ask, mode: str, answer: str, expected: list[float]
) -> None:
    response = await ask(lambda prompt: answer, mode, "fair", "bad", "good")
    assert scores(response) == expected
    assert response.axes["quality"].position_consistency == 0.0


@pytest.mark.parametrize("lost", ["failed", "abstained"])
async def test_one_order_alone_is_no_verdict(ask: Ask, lost: str) -> None:
    """Or a judge that goes by place would prefer the candidate that it was shown first."""

    def answer(prompt: str) -> str:
        if shown(prompt)[0] == "good" and lost == "failed":
            raise httpx.ConnectError("gone")
        return '{"reasoning": "", "verdict": "1"}' if shown(prompt)[0] == "fair" else "no idea"

    response = await ask(answer, "best_of", "fair", "bad", "good")
    assert scores(response) == [None] * 3
    assert {verdict.status.value for verdict in response.verdicts} == {lost}


async def test_both_orders_count_alike_however_many_of_their_votes_can_be_read(ask: Ask) -> None:
    asked = Counter[str]()

    def answer(prompt: str) -> str:
        asked[prompt] += 1
        return "no idea" if shown(prompt)[0] == "good" and asked[prompt] > 1 else '{"reasoning": "", "verdict": "1"}'

    response = await ask(answer, "best_of", "fair", "bad", "good", sampling={"votes": 4, "temperature": 1.0})
    assert response.verdicts[0].votes.counts == {"best": 4, "not best": 1}
    assert scores(response) == [0.5, 0.0, 0.5]


async def test_candidates_with_one_text_share_a_place(ask: Ask) -> None:
    response = await ask(ranking, "ranking", "good", "bad", "good")
    assert scores(response) == [1.0, 0.0, 1.0]


async def test_a_single_text_needs_no_question(ask: Ask) -> None:
    response = await ask(ranking, "ranking", "good", "good")
    assert (scores(response), response.usage.calls) == ([0.5, 0.5], 0)


async def test_random_order_asks_once_and_a_cohort_that_comes_again_in_the_same_order(ask: Ask) -> None:
    asked: list[list[str]] = []

    def answer(prompt: str) -> str:
        asked.append(shown(prompt))
        return ranking(prompt)

    texts = ("fair", "bad", "good", "fair too", "bad too")
    for _ in range(2):
        response = await ask(answer, "ranking", *texts, order="random")
        assert response.usage.calls == 1
    assert asked[0] == asked[1]
    assert response.axes["quality"].position_consistency is None


@pytest.mark.parametrize("answer", ['{"reasoning": "", "ranking": ["1", "1", "2"]}', "no idea", ""])
async def test_what_is_no_ranking_abstains(ask: Ask, answer: str) -> None:
    response = await ask(lambda prompt: answer, "ranking", "fair", "bad", "good")
    assert {verdict.status for verdict in response.verdicts} == {Status.ABSTAINED}
    assert response.verdicts[0].votes.unreadable == 2
