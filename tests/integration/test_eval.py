"""`preceptor eval` as a process, before a real judge service on a real vLLM with the nano teacher."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from preceptor_client.stack import Stack, judge_part
from preceptor_trainer.nano.model import nano_llama
from preceptor_trainer.nano.text import CLEAN, document, text
from preceptor_trainer.nano.tokenizer import policy_tokenizer
from preceptor_trainer.nano.world import World

if TYPE_CHECKING:
    from conftest import TeacherServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WINDOWS = 40


@pytest.fixture(scope="module")
def judge_url(stack: Stack, teacher_vllm: TeacherServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    part = judge_part(tmp_path_factory.mktemp("judge"), teacher_vllm.url, teacher_vllm.model)
    url = stack.start(part).part.url
    assert url is not None
    return url


@pytest.fixture(scope="module")
def novice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that has learned nothing: it writes words at random."""
    directory = tmp_path_factory.mktemp("novice")
    tokenizer = policy_tokenizer()
    nano_llama(tokenizer, layers=1, seed=0).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents without a flaw."""
    world, rng = World.generate(), random.Random("held-out")
    file = tmp_path_factory.mktemp("data") / "held-out.jsonl"
    lines = (json.dumps({"text": text(document(world, rng, CLEAN))}) for _ in range(WINDOWS + 20))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def evaluate(judge_url: str, *arguments: object) -> dict[str, Any]:
    """By the command that users call, which hands over to the trainer's."""
    sizes = ["--prefix-tokens=12", "--min-prefix-tokens=6", "--suffix-tokens=16", f"--windows={WINDOWS}"]
    command = [sys.executable, "-m", "preceptor_client", "eval", *map(str, arguments), *sizes, "--json"]
    env = {**os.environ, "PRECEPTOR_JUDGE_URL": judge_url}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def test_the_judge_prefers_flawless_suffixes_to_words_at_random(
    judge_url: str, novice: Path, held_out: Path, teacher_vllm: TeacherServer
) -> None:
    shown = evaluate(judge_url, novice, "--data", held_out)
    assert shown["windows"] == WINDOWS
    assert shown["verdicts"] == {"ok": 6 * WINDOWS, "abstained": 0, "failed": 0}
    quality, factuality = shown["axes"]["quality"], shown["axes"]["factuality"]
    assert quality["windows"] == shown["overall"]["windows"] == WINDOWS
    assert quality["win_rate"]["ci95"][1] < 0.2
    assert quality["rival"]["ci95"][0] > quality["model"]["ci95"][1]
    assert factuality["rival"]["value"] > 0.8
    # Pairwise in both orders, pointwise once for each side.
    assert shown["judge"]["calls"] == 6 * WINDOWS
    assert shown["judge"]["tokens"] > 16 * 6 * WINDOWS
    assert shown["judge"]["provenance"]["quality"]["teacher"] == teacher_vllm.model


def test_a_model_is_as_good_as_itself(judge_url: str, novice: Path, held_out: Path) -> None:
    shown = evaluate(judge_url, novice, "--data", held_out, "--against", novice)
    assert shown["overall"]["win_rate"] == {"value": 0.5, "ci95": [0.5, 0.5]}
    for result in shown["axes"].values():
        assert result["model"] == result["rival"]
        assert result["win_rate"]["value"] == 0.5
