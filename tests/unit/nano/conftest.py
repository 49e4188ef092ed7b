from __future__ import annotations

import pytest

from preceptor_trainer.nano.world import World


@pytest.fixture(scope="session")
def world() -> World:
    """The world that teacher, corpora and oracle share."""
    return World.generate()
