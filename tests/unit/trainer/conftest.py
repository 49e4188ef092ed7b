from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tiny_policy


@pytest.fixture
def tiny_llama() -> Callable[..., Any]:
    """`tiny_llama(seed)`: a tiny random Llama, see `tiny_policy`."""
    return tiny_policy.tiny_llama
