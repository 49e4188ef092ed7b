"""The policy, without its weights: does it load, is it long enough, does it have the tokens that are named?"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor_client.checks import Check
from preceptor_trainer.codec import Codec, token_id
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.planning.models import ModelSizes, sizes_of
from preceptor_trainer.pretrained import check_context, load_description
from preceptor_trainer.thoughts import ThoughtFormat, thought_format

_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Policy:
    """What the other checks need of it. `sizes` is None for a model whose sizes cannot be told, `thoughts` for a run
    without, or with delimiters that are no tokens."""

    codec: Codec
    sizes: ModelSizes | None
    thoughts: ThoughtFormat | None


def check_policy(config: TrainConfig) -> Generator[Check, None, Policy | None]:
    """Returns what was loaded, None if that failed."""
    path = config.model.path
    try:
        description, tokenizer = load_description(path, "the policy", key="model.path")
    except TrainError as error:
        yield Check("policy", "failure", one_line(str(error)), "set model.path")
        return None
    if Path(path).is_dir() and not any(next(Path(path).glob(ending), None) for ending in _WEIGHTS):
        yield Check("policy", "failure", f"{path} holds no weights ({', '.join(_WEIGHTS)})", "set model.path")
    codec = Codec(tokenizer)
    sizes: ModelSizes | None = None
    try:
        sizes = sizes_of(description.to_dict(), path, path)
        size = f"{sizes.parameters / 1e6:,.1f} M parameters"
    except TrainError as error:
        yield Check("policy", "warning", one_line(str(error)), "see to memory and disk yourself")
        size = "size unknown"
    yield Check("policy", "ok", f"{path}: {description.model_type}, {size}, {len(tokenizer):,} tokens")
    yield check_length(config, description)
    yield from check_controls(config, tokenizer)
    thoughts = None
    if config.thoughts:
        try:
            thoughts = thought_format(config, codec)
            yield Check("thoughts", "ok", f"{config.thoughts.open} and {config.thoughts.close} are one token each")
        except TrainError as error:
            yield Check("thoughts", "failure", str(error), "set thoughts.open and thoughts.close")
    return Policy(codec, sizes, thoughts)


def check_length(config: TrainConfig, description: Any) -> Check:
    """Whether the longest sequence fits into the model's context."""
    try:
        check_context(config, description)
    except TrainError as error:
        return Check("context", "failure", str(error), "lower data.prefix_tokens")
    positions = getattr(description, "max_position_embeddings", None) or "any number of"
    return Check("context", "ok", f"{config.sequence_tokens} tokens ({config.sequence_keys}) of {positions}")


def check_controls(config: TrainConfig, tokenizer: Any) -> Iterator[Check]:
    """Whether the control tokens are there already, or will be added."""
    if not config.controls:
        return
    new = [control.token for control in config.controls if token_id(tokenizer, control.token) is None]
    added = f"; added to the tokenizer: {', '.join(new)}" if new else ""
    yield Check("controls", "ok", f"{len(config.controls)} tokens{added}")
