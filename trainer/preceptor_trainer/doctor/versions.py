"""What is installed against what is asked for: by the package itself, by `logging` and by `tracing`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import requires, version

from packaging.requirements import Requirement

from preceptor_client.checks import Check
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.rollouts.vllm_server import WRITTEN_FOR
from preceptor_trainer.trackers.trackers import check_installed

_DISTRIBUTION, _LOOKED_AT = "preceptor", ("torch", "transformers")


def check_packages() -> Iterator[Check]:
    """torch and transformers against what the distribution asks for."""
    asked = {each.name: each for each in map(Requirement, requires(_DISTRIBUTION) or [])}
    for name in _LOOKED_AT:
        yield package_found(asked[name], version(name))


def package_found(asked: Requirement, installed: str) -> Check:
    """Whether `installed` is a version that is `asked` for. Pure."""
    if asked.specifier.contains(installed, prereleases=True):
        return Check(asked.name, "ok", installed)
    return Check(asked.name, "warning", installed, f"pip install '{asked.name}{asked.specifier}'")


def vllm_found(installed: str) -> Check:
    """The version of the policy's server: endpoints for its weights change between releases. Pure."""
    if installed.split(".")[:2] == WRITTEN_FOR.split("."):
        return Check("policy's vLLM version", "ok", installed)
    advice = f"weights are handed over as vLLM {WRITTEN_FOR} takes them: try a few steps, or use that"
    return Check("policy's vLLM version", "warning", installed, advice)


def check_parts(config: TrainConfig) -> Iterator[Check]:
    """The packages that the configuration's own choices need."""
    try:
        check_installed(config.logging)
    except TrainError as error:
        found, _, advice = str(error).partition(": ")
        yield Check("logging", "failure", found, advice)
    else:
        if config.logging.on:
            yield Check("logging", "ok", f"{', '.join(config.logging.on)} installed")
    if config.tracing.on:
        if importlib.util.find_spec("opentelemetry") is None:
            advice = "pip install 'preceptor[tracing]', or set tracing.enabled=false"
            yield Check("tracing", "failure", "OpenTelemetry is not installed", advice)
        else:
            yield Check("tracing", "ok", "OpenTelemetry installed")
