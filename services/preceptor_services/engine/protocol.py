"""The OpenAI protocol as the services speak it: bodies of requests, and what the replies say. Pure.

In: prompts and how to sample; a server's reply. Out: a JSON body; one `Answer` per prompt, in order, and their cost.
Guarantees: a reply outside the protocol is an error, never an answer; a thought is never taken for an answer.
Raises `EngineError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preceptor_client.contract import Constraint, Endpoint, Usage
from preceptor_services.engine.errors import EngineError
from preceptor_services.settings import Reasoning

_LONGEST_PAUSE_S = 2.0
_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"


@dataclass(frozen=True)
class Prompt:
    """One question: a text to complete, or a user's message with an optional system message."""

    text: str
    system: str | None = None


@dataclass(frozen=True)
class Generation:
    """How answers are drawn: `n` per prompt, at most `max_tokens` long, bound to `labels` by `constraint` where that
    is supported."""

    endpoint: Endpoint
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    labels: tuple[str, ...] = ()
    constraint: Constraint = "none"
    ranking: bool = False
    """Whether the verdict is all labels in order; concerns the constraint `json` alone."""


@dataclass(frozen=True)
class Answer:
    """The `n` texts drawn for one prompt, or the error that left it without any."""

    texts: tuple[str, ...] = ()
    reasoning: tuple[str | None, ...] = ()
    """What the teacher thought before each text, where it thought."""
    cut_off: tuple[bool, ...] = ()
    """Whether each text ran into its length limit."""
    bound: bool = False
    """Whether decoding was held to the constraint."""
    error: str | None = None
    lost: bool = False
    """Whether the error is the engine's and not the prompt's: asked again when the engine is well, it has an answer."""


def path_of(endpoint: Endpoint) -> str:
    """Where requests of this kind go."""
    return "/v1/completions" if endpoint == "completion" else "/v1/chat/completions"


def body_of(
    prompts: Sequence[Prompt],
    generation: Generation,
    *,
    model: str,
    constraint: Constraint,
    label_tokens: Mapping[str, int],
    reasoning: Reasoning = "none",
    thought_tokens: int = 0,
) -> dict[str, Any]:
    """One request for all `prompts`; chat takes one. `constraint` is what this server is able to hold to; one that
    would bind the thought is left out."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": generation.max_tokens,
        "n": generation.n,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
    }
    if generation.seed is not None:
        body["seed"] = generation.seed
    if generation.endpoint == "completion":
        body["prompt"] = [prompt.text for prompt in prompts]
    else:
        (prompt,) = prompts
        system = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
        body["messages"] = [*system, {"role": "user", "content": prompt.text}]
        if reasoning != "none":
            body["max_tokens"] += thought_tokens
        if reasoning == "parsed":
            body["thinking_token_budget"] = thought_tokens
        if reasoning in ("inline", "harmony") or (reasoning == "parsed" and constraint == "tokens"):
            constraint = "none"
    match constraint:
        case "tokens" if label_tokens.keys() >= set(generation.labels):
            body["allowed_token_ids"] = [label_tokens[label] for label in generation.labels]
        case "choice":
            body["structured_outputs"] = {"choice": list(generation.labels)}
        case "json":
            body["response_format"] = _verdict_schema(generation)
    return body


def is_bound(body: Mapping[str, Any]) -> bool:
    """Whether a request's body holds decoding to a constraint."""
    return bool(body.keys() & {"allowed_token_ids", "structured_outputs", "response_format"})


def _verdict_schema(generation: Generation) -> dict[str, Any]:
    verdict: dict[str, Any] = {"type": "string", "enum": list(generation.labels)}
    if generation.ranking:
        count = len(generation.labels)
        verdict = {"type": "array", "items": verdict, "minItems": count, "maxItems": count}
    field = "ranking" if generation.ranking else "verdict"
    schema = {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, field: verdict},
        "required": ["reasoning", field],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def answers_of(
    reply: Any, endpoint: Endpoint, prompts: int, n: int, *, reasoning: Reasoning = "none", bound: bool = False
) -> tuple[list[Answer], Usage]:
    """The answers to `prompts` prompts, `n` texts each, and their cost. With `inline` reasoning an answer that broke
    off before `</think>` is all thought; `bound` says that decoding was held to a constraint."""
    try:
        usage = reply["usage"]
        cost = Usage(
            calls=prompts,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage.get("completion_tokens") or 0,
        )
        choices = {choice["index"]: choice for choice in reply["choices"]}
        if len(reply["choices"]) != prompts * n or choices.keys() != set(range(prompts * n)):
            raise ValueError(f"{len(reply['choices'])} choices for {prompts} prompts, {n} each")
        texts = [(*_text_of(choice, endpoint, reasoning), _is_cut_off(choice)) for _, choice in sorted(choices.items())]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EngineError("broken", f"{path_of(endpoint)} does not answer as the protocol says: {error!r}") from None
    answers = []
    for start in range(0, len(texts), n):
        own, thoughts, cut_off = zip(*texts[start : start + n], strict=True)
        answers.append(Answer(own, thoughts, cut_off, bound))
    return answers, cost


def _is_cut_off(choice: Mapping[str, Any]) -> bool:
    return choice.get("finish_reason") == "length"


def _text_of(choice: Mapping[str, Any], endpoint: Endpoint, reasoning: Reasoning) -> tuple[str, str | None]:
    """A choice's text, and the thought before it. Choices are numbered prompt by prompt and come in any order."""
    if endpoint == "completion":
        thought, text = split_thought(choice["text"] or "")
        return text, thought
    message = choice["message"]
    broke_off = reasoning == "inline" and _is_cut_off(choice)
    # None: the thought took all the room there was. vLLM called the thought `reasoning_content` before `reasoning`.
    inline, text = split_thought(message["content"] or "", broke_off=broke_off)
    return text, message.get("reasoning") or message.get("reasoning_content") or inline


def split_thought(text: str, *, broke_off: bool = False) -> tuple[str | None, str]:
    """What a text holds up to its last `</think>`, and what follows. A thought without an end has nothing after it:
    one that was begun, or any text that is known to have broken off (`broke_off`)."""
    thought, end, rest = text.rpartition(_THOUGHT_ENDS)
    if not end:
        if not broke_off and not text.lstrip().startswith(_THOUGHT_BEGINS):
            return None, text
        thought, rest = text, ""
    return thought.strip().removeprefix(_THOUGHT_BEGINS).strip(), rest


def failure_of(status: int, text: str, retry_after: str, path: str) -> EngineError:
    """What a reply other than 200 means."""
    detail = f"{path} answered {status}: {_told(text)[:300]}"
    if status in (429, 503):
        try:
            pause_s = min(float(retry_after), _LONGEST_PAUSE_S)
        except ValueError:
            pause_s = None
        return EngineError("overloaded", detail, pause_s=pause_s, status=status)
    return EngineError("broken" if status >= 500 else "rejected", detail, status=status)


def _told(text: str) -> str:
    """The message of an error as the protocol has it; what is none, as it came."""
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return text
    return message if isinstance(message, str) else text
