"""How a teacher is asked and read while it is taught: by the rubric set that it will serve with.

In: a rubric set and the teacher's tokenizer. Out: prompts as token ids; verdicts and rewrites from answers. Guarantees:
prompts are those of the judge and rewrite services, word for word but for the fence, and an answer that is read here is
read the same there (a contract test holds both); what the services would forgive or guess is not read here, so that
teaching also teaches the form. Reads files when made. Raises `RubricError` and `TrainError`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from preceptor_client.contract import Mode, RubricSpec
from preceptor_client.rubrics import RewriteSpec, RubricError, find_set, load_rubric, read_spec
from preceptor_trainer.codec import Codec
from preceptor_trainer.errors import TrainError

Ids = tuple[int, ...]

_JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)
_FINAL_LINE = re.compile(r"verdict\s*:\s*(?P<label>.+?)\s*\.?", re.IGNORECASE)


class Asked:
    """A spec's templates, rendered to token ids."""

    def __init__(self, spec: RubricSpec | RewriteSpec, codec: Codec) -> None:
        self._chat = spec.endpoint == "chat"
        self._prompt = _JINJA.from_string(spec.prompt)
        self._system = _JINJA.from_string(spec.system) if spec.system else None
        self._tokenizer = codec.tokenizer
        self.max_tokens = spec.max_tokens
        if self._chat and not self._tokenizer.chat_template:
            raise TrainError(
                f"the rubrics are for chat and {self._tokenizer.name_or_path} has no chat template: set rubrics or "
                "model.path"
            )

    def render(self, **texts: str | None) -> Ids:
        """The prompt that asks about `texts`."""
        marked = {**texts, "fence": fence_for(sorted(text for text in texts.values() if text))}
        prompt = self._prompt.render(marked)
        if not self._chat:
            return tuple(self._tokenizer.encode(prompt))
        messages = [{"role": "user", "content": prompt}]
        if self._system:
            messages.insert(0, {"role": "system", "content": self._system.render(marked)})
        chat = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tuple(self._tokenizer.encode(chat, add_special_tokens=False))


class Axis(Asked):
    """How one axis is judged, pointwise or pairwise."""

    def __init__(self, spec: RubricSpec, codec: Codec) -> None:
        super().__init__(spec, codec)
        self.spec = spec

    def label(self, score: float) -> str:
        """The verdict of `score`."""
        found = [label for label, value in self.spec.labels.items() if value == score]
        if len(found) != 1:
            raise RubricError(f"rubric of {self.spec.axis}: {len(found)} labels have score {score:g}, need one")
        return found[0]

    def read(self, answer: str) -> str | None:
        """The label that `answer` gives in the form that was asked for; None if it gives none."""
        label = _written(self.spec, _after_thought(answer.strip()))
        return label if label in self.spec.labels else None

    def score(self, answer: str) -> float | None:
        """Of the label that `answer` gives."""
        label = self.read(answer)
        return None if label is None else self.spec.labels[label]


class Rewriting(Asked):
    """How suffixes are rewritten."""

    def __init__(self, spec: RewriteSpec, codec: Codec) -> None:
        super().__init__(spec, codec)
        self._join_words = spec.join_words

    def prompt(self, prefix: str, suffix: str) -> Ids:
        """Copy the suffix or repair it."""
        return self.render(prefix=prefix, suffix=suffix, join=self._join(prefix))

    def read(self, answer: str, prefix: str, suffix: str) -> str:
        """The rewrite of `suffix`: the answer without the words of the prefix that it has to begin with; nothing
        without them.
        """
        text, join = _after_thought(answer.strip()), self._join(prefix).split()
        if not join:
            return text
        # A suffix may go on in the middle of the last word.
        end = r"(?!\w)\s*" if prefix[-1:].isspace() or suffix[:1].isspace() else ""
        found = re.match(r"\s+".join(map(re.escape, join)) + end, text)
        return text[found.end() :] if found else ""

    def _join(self, prefix: str) -> str:
        return " ".join(prefix.split()[-self._join_words :]) if self._join_words else ""


class Wording:
    """The set `source`: a packaged one, or a folder."""

    def __init__(self, source: str, codec: Codec) -> None:
        self._folder = find_set(source)
        self._codec = codec

    def axis(self, name: str, mode: Mode) -> Axis:
        """The set's own rubric for the axis, which has to be of `mode`."""
        spec = load_rubric(self._folder / f"{name}.yaml")
        if spec.mode is not mode:
            raise RubricError(f"{self._folder / name}.yaml: is {spec.mode}; teaching needs a {mode} rubric")
        return Axis(spec, self._codec)

    def rewriting(self) -> Rewriting:
        """The set's way to rewrite."""
        return Rewriting(read_spec(self._folder / "rewrite.yaml", RewriteSpec).spec, self._codec)


def fence_for(texts: Sequence[str]) -> str:
    """A mark that stands in none of `texts`, the same whenever they are."""
    rng = random.Random("\0".join(texts))
    while any((mark := f"{rng.getrandbits(32):08x}") in text for text in texts):
        pass
    return mark


def quotable(text: str, codec: Codec) -> bool:
    """Whether `text` holds no token that means something to the teacher: the services take those out of a text."""
    return not any(token in text for token in codec.tokenizer.all_special_tokens)


def _after_thought(answer: str) -> str:
    thought, mark, final = answer.partition("</think>")
    return final.strip() if mark and not thought.startswith("{") else answer


def _written(spec: RubricSpec, answer: str) -> Any:
    """What stands where the verdict belongs."""
    match spec.parser:
        case "exact":
            return answer
        case "json":
            try:
                value = json.loads(answer)
            except (ValueError, RecursionError):
                return None
            written = value.get("verdict") if isinstance(value, dict) else None
            return written if isinstance(written, str) else None
        case "final_line":
            found = _FINAL_LINE.fullmatch((answer.splitlines() or [""])[-1].strip())
            return found["label"] if found else None
