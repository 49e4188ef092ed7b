"""Teaching, from its configuration to its report.

In: a `TeachJudge` or `TeachRewriter`; a teacher with its tokenizer, and documents. Out: in `<out>`: `config.yaml`,
`metrics.jsonl`, `summary.json`, `checkpoints/`, `final/` (a Hugging Face directory) and `report.json`. SIGINT or
SIGTERM end it soon, with a checkpoint of the last whole step to resume from. Raises `TrainError`, whose text says what
to change.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from preceptor_client.config import dump_config
from preceptor_client.contract import Mode
from preceptor_client.rubrics import RubricError
from preceptor_client.stack import FolderInUse, sole_use
from preceptor_trainer.checkpoint import save_checkpoint
from preceptor_trainer.codec import Codec
from preceptor_trainer.config import ObjectiveConfig
from preceptor_trainer.errors import TrainError
from preceptor_trainer.learner import Learner
from preceptor_trainer.pretrained import device_named, load_pretrained
from preceptor_trainer.resume import Start, find_start, restore
from preceptor_trainer.signals import until_signalled
from preceptor_trainer.teach.adapters import Adapted
from preceptor_trainer.teach.config import GradingConfig, TeachConfig, TeacherConfig, TeachJudge, TeachRewriter
from preceptor_trainer.teach.course import Course, Marks
from preceptor_trainer.teach.grading import Grader
from preceptor_trainer.teach.judge import JudgeCourse
from preceptor_trainer.teach.material import Passages, SafetyLabels, read_labels, unanimous
from preceptor_trainer.teach.objective import TaughtGrpo
from preceptor_trainer.teach.report import to_json
from preceptor_trainer.teach.respondent import Respondent, Stopped
from preceptor_trainer.teach.rewriter import RewriterCourse
from preceptor_trainer.teach.training import Lessons
from preceptor_trainer.teach.wording import Wording
from preceptor_trainer.telemetry import Telemetry

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Outcome:
    """The same exam before and after."""

    before: Marks
    after: Marks


def teach(config: TeachConfig, start: Start = "fresh") -> Outcome | signal.Signals:
    """Teach to the end, or to a signal, which is returned."""
    outcomes: list[Outcome] = []

    async def work(stop: asyncio.Event) -> bool:
        outcome = await run(config, start, stop)
        outcomes.extend([outcome] if outcome else [])
        return outcome is not None

    came = asyncio.run(until_signalled(work))
    return came if came is not None else outcomes[0]


async def run(config: TeachConfig, start: Start = "fresh", stop: asyncio.Event | None = None) -> Outcome | None:
    """`teach` for those who have an event loop. None if `stop` ended it."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        async with AsyncExitStack() as resources:
            resources.enter_context(sole_use(config.out))
            return await _run(config, start, stop or asyncio.Event(), resources)
    except Stopped:
        return None
    except FolderInUse:
        raise TrainError(f"another run is at work in {config.out}: stop it, or set out") from None
    except RubricError as error:
        raise TrainError(str(error)) from error
    except OSError as error:
        raise TrainError(f"cannot write to {config.out}: {error.strerror or error}; set out") from error
    except torch.OutOfMemoryError as error:
        raise TrainError(f"out of memory: lower answers.prompts_at_once or compute.micro_cohorts ({error})") from error


async def _run(config: TeachConfig, start: Start, stop: asyncio.Event, resources: AsyncExitStack) -> Outcome | None:
    def say(what: str) -> None:
        print(f"{config.run}: {what}", file=sys.stderr, flush=True)

    begun = find_start(config, start, say)
    (config.out / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    model, codec = _load(config.model, config.device, "model.path")
    adapted = Adapted(model, config.model.lora, base=config.model.path, seed=config.seed) if config.model.lora else None
    teacher = _respondent(config, model, codec, stop)
    passages = Passages(config.data, config.exam, codec, begun[1].position if begun else None)
    say("the exam before")
    course = await _course(config, codec, teacher, passages, stop, say)
    before = await course.examine(teacher)

    grpo = ObjectiveConfig(name="grpo", correction="none", normalize_std=config.normalize_std)
    objective = TaughtGrpo(grpo, course.max_tokens)
    learner = Learner(model, objective, config.optimizer, config.compute, config.steps)
    if begun:
        if adapted:
            adapted.load(begun[0])
        restore(learner, *begun, weights=model.state_dict() if adapted else None)
        await teacher.engine.load(model, learner.version)
    telemetry = resources.enter_context(Telemetry(config.out, config.run, config.steps))
    saved = adapted or model
    lessons = Lessons(
        config, course, passages, learner, teacher, codec, saved, telemetry, begun[1].samplings if begun else 0
    )
    if not await lessons.run():
        return None
    say("the exam after")
    after = await course.examine(teacher)
    await asyncio.to_thread(
        save_checkpoint, config.out / "final", saved, codec.tokenizer, lessons.state(), learner.moments()
    )
    about = {"run": config.run, "teacher": config.model.path, "steps": learner.version, "seed": config.seed}
    report = json.dumps(to_json(_name(config), before, after, about), indent=2) + "\n"
    (config.out / REPORT_FILE).write_text(report, encoding="utf-8")
    return Outcome(before, after)


async def _course(
    config: TeachConfig,
    codec: Codec,
    teacher: Respondent,
    passages: Passages,
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> Course[Any]:
    """What is taught, with all that it needs from the teacher as it is now."""
    wording = Wording(config.rubrics, codec)
    labels = await _labels(config, wording, codec, teacher, passages)
    for name, labelled in (("to teach from", labels.taught), ("for the exam", labels.exam)):
        safe = sum(each.safe for each in labelled)
        say(f"passages {name}: {safe} safe, {len(labelled) - safe} unsafe")
    if isinstance(config, TeachJudge):
        return JudgeCourse(config, wording, labels, passages.exam)
    assert isinstance(config, TeachRewriter)
    grader = _grader(config, config.grading, "grading.path", codec, stop)
    examiner = _grader(config, config.examiner, "examiner.path", codec, stop) if config.examiner else grader
    return RewriterCourse(config, wording.rewriting(), labels, passages.exam, grader=grader, examiner=examiner)


async def _labels(
    config: TeachConfig, wording: Wording, codec: Codec, teacher: Respondent, passages: Passages
) -> SafetyLabels:
    safety = config.safety
    if safety.labels is not None:
        labelled = read_labels(safety.labels, codec)
    else:
        data = config.data.model_copy(update={"path": safety.path}) if safety.path else config.data
        # Of the front of the stream, whatever a resumed run has taken since.
        windows = Passages(data, config.exam, codec).take(safety.windows)
        labelled = await unanimous(windows, teacher, wording.axis("safety", Mode.POINTWISE), safety, config.seed)
    return SafetyLabels.divided(labelled, safety.held_out, config.seed)


def _grader(config: TeachConfig, grading: GradingConfig, key: str, codec: Codec, stop: asyncio.Event) -> Grader:
    of = config.model if grading.path is None else TeacherConfig(path=grading.path, dtype=config.model.dtype)
    model, own = _load(of, config.device, key)
    return Grader(_respondent(config, model, own, stop), Wording(grading.rubrics or config.rubrics, own), grading.votes)


def _respondent(config: TeachConfig, model: Any, codec: Codec, stop: asyncio.Event) -> Respondent:
    return Respondent(model, codec, at_once=config.answers.prompts_at_once, stop=stop)


def _load(teacher: TeacherConfig, device: str, key: str) -> tuple[Any, Codec]:
    dtype = torch.bfloat16 if teacher.dtype == "bfloat16" else torch.float32
    model, tokenizer = load_pretrained(teacher.path, "the teacher", key=key, dtype=dtype)
    return model.to(device_named(device)), Codec(tokenizer)


def _name(config: TeachConfig) -> str:
    return "judge" if isinstance(config, TeachJudge) else "rewriter"
