"""Shared fixtures: real servers, started once per session when a test first asks for them, and always stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from redis.asyncio import Redis

from preceptor_client.queue import connect
from preceptor_client.stack import Stack, redis_part, vllm_part

# A build fails for what has changed, not for the examples of the day; a busy machine is no bug.
settings.register_profile("build", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("build")


@dataclass(frozen=True)
class TeacherServer:
    """A real vLLM server with the nano teacher."""

    url: str
    model: str
    directory: Path


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Owns the session's servers and stops them at its end."""
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def redis_url(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real Redis, shared by the session: use `redis`, or a namespace of your own."""
    url = stack.start(redis_part(tmp_path_factory.mktemp("redis"))).part.url
    assert url is not None
    return url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A connection to the session's Redis, emptied before the test."""
    connection = connect(redis_url)
    try:
        await connection.flushall()
        yield connection
    finally:
        await connection.aclose()


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where costly artefacts are kept between sessions."""
    return Path(os.environ.get("PRECEPTOR_CACHE") or Path.home() / ".cache" / "preceptor")


@pytest.fixture(scope="session")
def nano_teacher_dir(cache_dir: Path) -> Path:
    """The trained nano teacher, a Hugging Face directory: minutes the first time, instant afterwards."""
    from preceptor_trainer.nano.teacher import ensure_teacher

    return ensure_teacher(cache_dir)


@pytest.fixture(scope="session")
def teacher_vllm(stack: Stack, nano_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TeacherServer:
    """The nano teacher on a real vLLM server, shared by the session."""
    part = vllm_part(nano_teacher_dir, "nano-teacher", tmp_path_factory.mktemp("teacher"), name="teacher")
    url = stack.start(part).part.url
    assert url is not None
    return TeacherServer(url, "nano-teacher", nano_teacher_dir)


@pytest.fixture
def kept_logging() -> Iterator[None]:
    """Puts back what `logs.set_up` changes."""
    names = [None, *logging.root.manager.loggerDict]
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).disabled) for name in names}
    handlers = logging.root.handlers[:]
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        for name in [None, *logging.root.manager.loggerDict]:
            level, disabled = before.get(name, (logging.NOTSET, False))
            logging.getLogger(name).setLevel(level)
            logging.getLogger(name).disabled = disabled
