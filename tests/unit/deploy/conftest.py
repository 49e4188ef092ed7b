"""What the overlays build, once for all tests; tests that change it take a copy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from scripts.manifests.render import DIRECTORIES, KUBERNETES, Manifest, render

built = cache(render)


@pytest.fixture(params=DIRECTORIES, ids=lambda path: path.name)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Of each overlay and example."""
    return built(request.param)


@pytest.fixture(params=["cpu", "gpu"])
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    """Of each overlay."""
    return built(Path(KUBERNETES / "overlays" / request.param))


@pytest.fixture
def cpu() -> list[Manifest]:
    return built(KUBERNETES / "overlays" / "cpu")


@pytest.fixture
def gpu() -> list[Manifest]:
    return built(KUBERNETES / "overlays" / "gpu")


@pytest.fixture
def jobset() -> list[Manifest]:
    return built(KUBERNETES / "examples" / "jobset")
