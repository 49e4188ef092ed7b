"""What is taught from: passages of documents, those for the exam kept apart, and passages whose safety is known.

In: documents, as a `DataConfig` says, and for safety a file of labels or the votes of the present teacher. Out:
`Passage`s. Guarantees: a document of the exam is never trained on; passages come in an order that data and seed fix,
and go on after a `Position`. Passages that hold a control token of the teacher are passed over. Raises `TrainError`.
Reads documents as they are needed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ValidationError

from preceptor_client.config import describe
from preceptor_trainer.codec import Codec
from preceptor_trainer.data.config import DataConfig
from preceptor_trainer.data.stream import Position, WindowStream
from preceptor_trainer.data.windows import Window
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.teach.config import ExamConfig, SafetyConfig
from preceptor_trainer.teach.respondent import Respondent
from preceptor_trainer.teach.wording import Axis, quotable


@dataclass(frozen=True)
class Passage:
    """A document's prefix, and a text that continues it."""

    prefix: str
    suffix: str


@dataclass(frozen=True)
class Labelled:
    """A passage, and whether its suffix is safe."""

    passage: Passage
    safe: bool


class Passages:
    """An endless stream, `exam` apart; `start` is where it goes on."""

    def __init__(self, data: DataConfig, exam: ExamConfig, codec: Codec, start: Position | None = None) -> None:
        self._codec = codec
        self._path = data.path
        self.position = start or Position()
        once = {"epochs": 1, "shuffle_buffer": 0}
        held_out = data.model_copy(update={**once, "path": exam.path} if exam.path else once)
        fitting = (window for window, _ in WindowStream(held_out, codec.encode) if self._fits(window))
        windows = list(islice(fitting, exam.windows))
        self.exam = [self._passage(window) for window in windows]
        self._held_back = set() if exam.path else {window.document for window in windows}
        if len(self.exam) < 2:
            raise TrainError(f"{held_out.path}: holds {len(self.exam)} passages for the exam, two are needed at least")
        self._windows = iter(WindowStream(data, codec.encode, start=self.position))

    def take(self, count: int) -> list[Passage]:
        """The next `count`."""
        taken: list[Passage] = []
        fruitless_since = self.position.epoch
        while len(taken) < count:
            try:
                window, self.position = next(self._windows)
            except StopIteration:
                raise TrainError(f"{self._path}: no passages are left; leave out data.epochs") from None
            if window.document not in self._held_back and self._fits(window):
                taken.append(self._passage(window))
                fruitless_since = self.position.epoch
            elif self.position.epoch > fruitless_since + 1:
                raise TrainError(f"{self._path}: nothing is left to teach from; lower exam.windows or set exam.path")
        return taken

    def _fits(self, window: Window) -> bool:
        return quotable(self._codec.decode(window.prefix + window.suffix), self._codec)

    def _passage(self, window: Window) -> Passage:
        return Passage(self._codec.decode(window.prefix), self._codec.decode(window.suffix))


@dataclass(frozen=True)
class SafetyLabels:
    """Passages of known safety. `taught` and `exam` share none."""

    taught: Sequence[Labelled]
    exam: Sequence[Labelled]

    @classmethod
    def divided(cls, labelled: Sequence[Labelled], held_out: float, seed: int) -> SafetyLabels:
        """A share of `held_out` for the exam, by lot."""
        shuffled = random.Random(f"{seed}/safety").sample(labelled, len(labelled))
        count = round(held_out * len(shuffled))
        return cls(shuffled[count:], shuffled[:count])

    def of(self, safe: bool) -> list[Passage]:
        """The taught ones that are safe, or that are not."""
        return [each.passage for each in self.taught if each.safe is safe]


class _Line(BaseModel):
    """Of a file of labels; other keys are its own matter."""

    prefix: str = ""
    text: str
    safe: bool


def read_labels(path: Path, codec: Codec) -> list[Labelled]:
    """The passages of a JSONL file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"cannot read {path}: {error}; set safety.labels") from None
    labelled = []
    for number, line in enumerate(lines, start=1):
        try:
            read = _Line.model_validate_json(line)
        except ValidationError as error:
            raise TrainError(f"{path}:{number}: {one_line(describe(error))}") from None
        if quotable(read.prefix + read.text, codec):
            labelled.append(Labelled(Passage(read.prefix, read.text), read.safe))
    return labelled


async def unanimous(
    passages: Sequence[Passage], teacher: Respondent, safety: Axis, config: SafetyConfig, seed: int
) -> list[Labelled]:
    """Those on which all votes of `teacher` are the same."""
    votes = await teacher.texts(
        [safety.render(candidate=passage.suffix) for passage in passages],
        count=config.votes.count,
        max_tokens=safety.max_tokens,
        temperature=config.votes.temperature,
        top_p=config.votes.top_p,
        seed=seed,
    )
    scores = [{safety.score(answer) for answer in answers} for answers in votes]
    return [
        Labelled(passage, score == {1.0})
        for passage, score in zip(passages, scores, strict=True)
        if score in ({0.0}, {1.0})
    ]
