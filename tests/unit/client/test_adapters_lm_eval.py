"""The metric for lm-evaluation-harness, without the harness."""

from __future__ import annotations

import pytest

from preceptor_client.adapters import Scorer
from preceptor_client.adapters.lm_eval import JudgeMetric
from preceptor_client.contract import Status
from preceptor_client.testing import FakePreceptor

DOCS = [{"question": "why?", "answer": "so"}, {"question": "how?", "answer": "thus"}]


def by_length(axis: str, prefix: str, text: str) -> float | Status:
    return Status.ABSTAINED if text == "?" else min(1.0, len(text) / 10)


@pytest.fixture
def fake() -> FakePreceptor:
    return FakePreceptor(by_length)


@pytest.fixture
def metric(fake: FakePreceptor) -> JudgeMetric:
    scorer = Scorer(("quality", "safety"), client=fake.client())
    return JudgeMetric(scorer, prompt="question", reference=lambda doc: doc["answer"].upper())


def test_a_document_has_its_score_or_is_counted_as_unjudged(fake: FakePreceptor, metric: JudgeMetric) -> None:
    found = metric.process_results(DOCS[0], ["because"])
    assert found == {"judge": 0.7, "judge_quality": 0.7, "judge_safety": 0.7, "judge_unjudged": 0.0}
    assert metric.process_results(DOCS[0], ["?"]) == {"judge_unjudged": 1.0}
    assert (fake.judged[0].cohort.prefix, fake.judged[0].cohort.reference) == ("why?", "SO")


def test_the_filter_judges_once_and_leaves_the_texts_as_they_are(fake: FakePreceptor, metric: JudgeMetric) -> None:
    answers = metric.answers().apply([["because"], "?"], DOCS)
    assert answers == ["because", "?"]
    assert [metric.process_results(doc, [text]).get("judge") for doc, text in zip(DOCS, answers, strict=True)] == [
        0.7,
        None,
    ]
    assert len(fake.judged) == 2


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="the document has no 'question', only text"):
        JudgeMetric(prompt="question").process_results({"text": "x"}, ["y"])
