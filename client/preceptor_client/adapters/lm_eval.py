"""lm-evaluation-harness: the judge as a metric of a task, beside its YAML.

    judge = JudgeMetric(Scorer("quality", against_reference=True), prompt="question", reference="answer")
    process_results = judge.process_results         # process_results: !function judge.process_results
    answers = judge.answers                         # filter: - function: !function judge.answers

In: documents of a `generate_until` task and the model's answers. Out: per document `judge`, its score, and of several
axes each `judge_<axis>`; `judge_unjudged` is 1 where there is none. A document that could not be judged has no `judge`
at all, so the mean is over those that have, and the mean of `judge_unjudged` is the share of the others. As a filter it
judges all answers side by side; without it, one document after the other. Waits for the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preceptor_client.adapters.scoring import Scored, Scorer, plain_text

Field = str | Callable[[Mapping[str, Any]], str]


class Answer(str):
    """A model's answer, with what the judge found."""

    found: Scored | None = None


class JudgeMetric:
    """`prompt` and `reference` name a document's field, or are functions of the document."""

    def __init__(self, scorer: Scorer | None = None, *, prompt: Field, reference: Field | None = None) -> None:
        self._scorer = scorer or Scorer()
        self._prompt = prompt
        self._reference = reference

    def process_results(self, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
        """The metrics of one document, of its first answer."""
        text = results[0]
        found = text.found if isinstance(text, Answer) and text.found else self._judge([doc], [text])[0]
        several = len(self._scorer.axes) > 1
        metrics = {f"judge_{axis}": score for axis, score in found.axes.items() if several}
        if found.score is not None:
            metrics["judge"] = found.score
        return {**metrics, "judge_unjudged": float(found.score is None)}

    def answers(self) -> JudgeMetric:
        """As a step of a filter: lm-eval makes one for every run of the filter."""
        return self

    def apply(self, resps: Sequence[Any], docs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """All answers, judged: the first of each document's, if there are several."""
        texts = [resp if isinstance(resp, str) else resp[0] for resp in resps]
        answers = []
        for text, found in zip(texts, self._judge(docs, texts), strict=True):
            answer = Answer(text)
            answer.found = found
            answers.append(answer)
        return answers

    def _judge(self, docs: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[Scored]:
        references = [None if self._reference is None else _field(doc, self._reference) for doc in docs]
        return self._scorer.score_texts([_field(doc, self._prompt) for doc in docs], texts, references)


def _field(doc: Mapping[str, Any], field: Field) -> str:
    if callable(field):
        return field(doc)
    if field not in doc:
        raise KeyError(f"the document has no {field!r}, only {', '.join(doc)}: name another field, or give a function")
    return plain_text(doc[field])
