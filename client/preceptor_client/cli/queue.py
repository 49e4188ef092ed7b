"""`preceptor queue`: look into the queue, read its dead letters, put them back, throw away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape
from rich.table import Column, Table

from preceptor_client.cli.common import CommandError, settings_with, shortened, stderr, stdout
from preceptor_client.masking import shown

if TYPE_CHECKING:
    from preceptor_client.queue import DeadLetter, QueueOperations, QueueStatus

_EXAMPLES = """\b
Examples:
  preceptor queue status
  preceptor queue status --redis redis://127.0.0.1:6379/0 --json
  preceptor queue dead --run my-run
  preceptor queue replay 1760000000000-0
  preceptor queue replay --run my-run
  preceptor queue purge --dead
  preceptor queue purge --run my-run --yes"""

ResultT = TypeVar("ResultT")
RedisUrl = Annotated[str | None, typer.Option("--redis", help="The queue's Redis. [default: PRECEPTOR_REDIS_URL]")]
Namespace = Annotated[str, typer.Option(help="The queue's name in Redis.")]
Run = Annotated[str | None, typer.Option(help="Of this run alone.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The queue between trainer and judge workers.", rich_markup_mode=None)
    group.callback()(lambda: None)
    for command in (status, dead, replay, purge):
        group.command(command.__name__, epilog=_EXAMPLES)(command)
    app.add_typer(group, name="queue", epilog=_EXAMPLES)


def status(
    redis: RedisUrl = None,
    namespace: Namespace = "preceptor",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Cohorts of each run: waiting for a worker (the lag), in flight at one, answered and not yet consumed, dead; how
    old the oldest without an answer is; and how many workers there are."""
    found = _with_queue(redis, namespace, lambda queue: queue.status())
    if as_json:
        print(json.dumps(asdict(found)))
        return
    stdout.print(_status_table(found))


def dead(
    run: Run = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the oldest first.")] = 100,
    redis: RedisUrl = None,
    namespace: Namespace = "preceptor",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a letter, with its task.")] = False,
) -> None:
    """Cohorts that no worker could answer: why, after how many attempts, and the last error."""
    letters = _with_queue(redis, namespace, lambda queue: queue.dead(run, limit))
    if as_json:
        for letter in letters:
            print(json.dumps(asdict(letter)))
        return
    table = Table(Column("entry", no_wrap=True), "run", "cohort", "age", "attempts", "reason", "last error")
    for letter in letters:
        table.add_row(*_letter_row(letter))
    stdout.print(table)


def replay(
    entries: Annotated[list[str] | None, typer.Argument(help="As `preceptor queue dead` shows them.")] = None,
    run: Run = None,
    all_letters: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    bound: Annotated[int, typer.Option(min=1, help="Cohorts that may be open in the queue at once.")] = 1024,
    redis: RedisUrl = None,
    namespace: Namespace = "preceptor",
) -> None:
    """Put dead letters back into the queue: those named, those of a run, or all."""
    if bool(entries) + (run is not None) + all_letters != 1:
        raise CommandError("name what to replay: entries, --run NAME, or --all")

    async def work(queue: QueueOperations) -> tuple[int, int]:
        return await queue.replay(entries or None, run, bound=bound), (await queue.status()).dead

    replayed, left = _with_queue(redis, namespace, work)
    stderr.print(f"{replayed} put back; dead letters left: {left}", soft_wrap=True)


def purge(
    run: Annotated[str | None, typer.Option(help="Everything of this run; with --dead its dead letters.")] = None,
    dead_letters: Annotated[bool, typer.Option("--dead", help="Dead letters, of all runs or of --run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    redis: RedisUrl = None,
    namespace: Namespace = "preceptor",
) -> None:
    """Throw away dead letters, or all of a run: its cohorts, their verdicts and its dead letters. Asks first."""
    if run is None and not dead_letters:
        raise CommandError("name what to purge: --run NAME, --dead, or both")
    found = _with_queue(redis, namespace, lambda queue: queue.status())
    if not (what := _what_goes(found, run, dead_letters)):
        stderr.print("there is nothing to purge")
        return
    if not yes:
        try:
            agreed = typer.confirm(f"This throws away {what}. Go on?", err=True)
        except typer.Abort:
            agreed = False
        if not agreed:
            raise CommandError("nothing was purged (--yes does not ask)")

    async def work(queue: QueueOperations) -> None:
        if run is None or dead_letters:
            await queue.purge_dead(run)
        else:
            await queue.purge_run(run)

    _with_queue(redis, namespace, work)
    stderr.print(f"purged: {what}", soft_wrap=True)


def _with_queue(redis: str | None, namespace: str, work: Callable[[QueueOperations], Awaitable[ResultT]]) -> ResultT:
    """What `work` does with the queue of the settings."""
    try:
        from preceptor_client.queue import QueueMisfit, QueueOperations, QueueUnavailable, check_redis, connect
    except ModuleNotFoundError:
        raise CommandError("this needs redis-py: pip install 'preceptor[queue]'") from None
    url = settings_with(redis_url=redis).redis_url

    async def ask() -> ResultT:
        async with connect(url) as connection:
            await check_redis(connection, namespace=namespace)
            return await work(QueueOperations(connection, namespace=namespace))

    try:
        return asyncio.run(ask())
    except (QueueMisfit, QueueUnavailable) as error:
        raise CommandError(f"cannot ask Redis at {shown(url)}: {error}") from None
    except LookupError as error:
        raise CommandError(str(error)) from None


def _status_table(found: QueueStatus) -> Table:
    table = Table("run", caption=f"{found.workers} worker{'' if found.workers == 1 else 's'}", caption_justify="left")
    for name in ("waiting", "in flight", "answered", "dead", "oldest"):
        table.add_column(name, justify="right")
    for run, each in sorted(found.runs.items()):
        counts = (each.waiting, each.in_flight, each.answered, each.dead)
        table.add_row(escape(shortened(run)), *map(str, counts), _age(each.oldest_s))
    table.add_section()
    answered = sum(each.answered for each in found.runs.values())
    counts = (found.waiting, found.in_flight, answered, found.dead)
    table.add_row("all", *map(str, counts), _age(found.oldest_s))
    return table


def _letter_row(letter: DeadLetter) -> Sequence[str]:
    texts = (letter.reason, letter.last_error)
    named = (escape(_plain(text)) or "?" for text in (letter.run, letter.cohort_id))
    age = _age(max(0.0, time.time() - letter.at))
    return (
        letter.entry_id,
        *named,
        age,
        str(letter.attempts),
        *(escape(shortened(_plain(text), 200)) for text in texts),
    )


def _what_goes(found: QueueStatus, run: str | None, dead_letters: bool) -> str:
    """In words, what a purge takes; empty if there is nothing."""
    if run is None:
        return f"{_letters(found.dead)} of all runs" if found.dead else ""
    each = found.runs.get(run)
    if each is None:
        return ""
    if dead_letters:
        return f"{_letters(each.dead)} of {run}" if each.dead else ""
    parts = {
        f"{each.waiting} waiting": each.waiting,
        f"{each.in_flight} in flight": each.in_flight,
        f"{each.answered} answered and not yet consumed": each.answered,
        _letters(each.dead): each.dead,
    }
    return f"all of {run}: " + (
        ", ".join(words for words, count in parts.items() if count) or "notices of dead letters"
    )


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plain(text: str) -> str:
    """Text of unknown origin, as a terminal can show it."""
    return "".join(each if each.isprintable() else " " for each in text.encode("utf-8", "replace").decode())
