"""`preceptor eval MODEL`: from arguments to a table or a JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console, Group
from rich.progress import Progress

from preceptor_client.config import describe
from preceptor_trainer.endings import failed, told_of_signals
from preceptor_trainer.errors import TrainError, one_line
from preceptor_trainer.evaluation.plan import EvalPlan, HarnessPlan

EXAMPLES = """\b
Examples:
  preceptor eval runs/sip/final --data held-out.jsonl --against runs/nll/final
  preceptor eval my-model --data texts/ --source text --prefix-tokens 256 --json
  preceptor eval my-model --data held-out.jsonl --judge-url http://other:8101 --rubric brevity.yaml
  preceptor eval my-model --prompts prompts.jsonl --suffix-tokens 64 --axes safety --control '<safe>'
  preceptor eval my-model --lm-eval arc_easy,hellaswag --limit 200"""
_KINDS = ("--data", "--prompts", "--lm-eval")


def evaluate(
    model: Annotated[str, typer.Argument(help="A Hugging Face directory or name, with its tokenizer.")],
    data: Annotated[str | None, typer.Option(help="Held-out documents: a file, a folder, a data set's name.")] = None,
    prompts: Annotated[str | None, typer.Option(help="In place of --data: one prompt a document, no suffix.")] = None,
    lm_eval: Annotated[str | None, typer.Option(help="In place of both: tasks of lm-evaluation-harness.")] = None,
    source: Annotated[str, typer.Option(help="jsonl, text, parquet or huggingface.")] = "jsonl",
    split: Annotated[str, typer.Option(help="Of a Hugging Face data set.")] = "train",
    text_field: Annotated[str, typer.Option(help="The key or column that holds a document's text.")] = "text",
    bad_documents: Annotated[str, typer.Option(help="stop at what cannot be read, or skip it.")] = "stop",
    against: Annotated[str | None, typer.Option(help="A second model (default: the original suffixes).")] = None,
    control: Annotated[str | None, typer.Option(help="A control token in front of what MODEL reads.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="Held-out windows or prompts at most, one a document.")] = 200,
    prefix_tokens: Annotated[int, typer.Option(min=1, help="Longest prefix; of a prompt, its last tokens.")] = 1920,
    min_prefix_tokens: Annotated[int, typer.Option(min=1, help="Shortest prefix.")] = 1,
    suffix_tokens: Annotated[int, typer.Option(min=1, help="Tokens written for each window or prompt.")] = 128,
    axes: Annotated[
        str | None, typer.Option(help="What is judged, by commas (default: all three, or the rubrics' axes).")
    ] = None,
    rubric: Annotated[
        list[str] | None, typer.Option(help="Another rubric for its axis: a name of the judge's, a file or folder.")
    ] = None,
    judge_url: Annotated[str | None, typer.Option(help="The judge service (default: PRECEPTOR_JUDGE_URL).")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Cohorts at the judge at once.")] = 16,
    include_path: Annotated[Path | None, typer.Option(help="--lm-eval: a folder of tasks of your own.")] = None,
    fewshot: Annotated[int | None, typer.Option(min=0, help="--lm-eval: examples in the prompt.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="--lm-eval: documents of each task at most.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="--lm-eval: sequences at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the splits and the sampling.")] = 0,
    samples: Annotated[Path | None, typer.Option(help="A file for what was written, as JSON lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure MODEL: what it writes, by a judge, against a rival; or lm-evaluation-harness."""
    given = [name for name, value in zip(_KINDS, (data, prompts, lm_eval), strict=True) if value is not None]
    if len(given) != 1:
        raise failed("eval", f"give one of {', '.join(_KINDS)}" + (f", not {' and '.join(given)}" if given else ""), 2)
    needless = [name for name, value in (("--against", against), ("--control", control)) if value is not None]
    if lm_eval is not None and needless:
        raise failed("eval", f"--lm-eval measures one model as it is: leave {' and '.join(needless)} out", 2)
    try:
        plan = (
            HarnessPlan.model_validate(
                {
                    "model": model,
                    "tasks": lm_eval,
                    "include": include_path,
                    "fewshot": fewshot,
                    "limit": limit,
                    "batch_size": batch_size,
                    "seed": seed,
                }
            )
            if lm_eval is not None
            else EvalPlan.model_validate(
                {
                    "model": model,
                    "rival": against,
                    "control": control,
                    "data": {
                        "source": source,
                        "path": data if prompts is None else prompts,
                        "split": split,
                        "text_field": text_field,
                        "bad_documents": bad_documents,
                        "prefix_tokens": prefix_tokens,
                        "min_prefix_tokens": min_prefix_tokens,
                        "suffix_tokens": suffix_tokens,
                        "epochs": 1,
                        "seed": seed,
                    },
                    "prompts": prompts is not None,
                    "windows": windows,
                    "axes": axes,
                    "rubrics": rubric or (),
                    "seed": seed,
                    "samples": samples,
                    "concurrency": concurrency,
                    "client": {"judge_url": judge_url} if judge_url else {},
                }
            )
        )
    except ValidationError as error:
        raise failed("eval", one_line(describe(error)), 2) from None
    with told_of_signals("eval"):
        try:
            as_object, table = _by_tasks(plan) if isinstance(plan, HarnessPlan) else _by_judge(plan)
        except TrainError as error:
            raise failed("eval", one_line(str(error)), 1) from None
    if as_json:
        typer.echo(json.dumps(as_object))
    else:
        Console().print(table)


# Late: torch takes seconds to import, and a wrong argument should be told at once.
def _by_judge(plan: EvalPlan) -> tuple[dict[str, Any], Group]:
    from preceptor_trainer.evaluation.evaluate import evaluate
    from preceptor_trainer.evaluation.judged import ORIGINAL, table, to_json

    with Progress(console=Console(stderr=True), transient=True) as progress:
        outcome = evaluate(plan, progress)
    rival = plan.rival or (None if plan.prompts else ORIGINAL)
    as_object = to_json(outcome, model=plan.model, rival=rival, control=plan.control)
    return as_object, table(outcome, model=plan.model, rival=rival, control=plan.control)


def _by_tasks(plan: HarnessPlan) -> tuple[dict[str, Any], Group]:
    from preceptor_trainer.evaluation.harness import run_tasks, table, to_json

    results = run_tasks(plan)
    return to_json(results, model=plan.model), table(results, model=plan.model)
