"""The documents hold together: links lead somewhere, pages are in the site, commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pages import ROOT, block_lines, blocks
from preceptor_client.cli.main import app as client_app
from preceptor_client.config import load_config
from preceptor_services.settings import ServiceSettings
from preceptor_trainer.cli import app as trainer_app
from preceptor_trainer.config import TrainConfig
from preceptor_trainer.planning.settings import PlanSettings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("preceptor", "python -m preceptor_", "torchrun", "make")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def commands() -> list[tuple[str, str]]:
    """Page and command, for every command of ours in a fenced block."""
    found = []
    for page in PAGES:
        for block in (*blocks(page), *blocks(page, "bash")):
            lines = map(str.strip, block_lines(block))
            found += [(page.name, line) for line in lines if line.startswith(PROGRAMS)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_the_sites_links_stay_in_the_site() -> None:
    pages = [(page, without_code(page.read_text(encoding="utf-8"))) for page in PAGES[1:]]
    links = [(page, target) for page, text in pages for target in re.findall(r"\]\(([^)\s#:]+)[)#]", text)]
    assert links
    assert [
        (page.name, to) for page, to in links if not (page.parent / to).resolve().is_relative_to(ROOT / "docs")
    ] == []


def test_every_page_is_in_the_site_once() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for inner in (entry.values() if isinstance(entry, dict) else entry) for page in pages(inner)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_is_one_that_is_understood(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
    elif words[0] == "preceptor":
        understood(words[1:])
    elif "preceptor_services" in words:
        options = [word for word in words if re.match(r"--\w+\.\w", word)]
        load_config(ServiceSettings, None, options, env_prefix="NO_SUCH_")
    else:
        understood(words[words.index("preceptor_trainer") + 1 :])


def understood(arguments: list[str]) -> None:
    """Fails unless the command line takes them, and the configuration that they name takes its changes."""
    context, name = parsed(client_app, arguments)
    if name in typer.main.get_command(trainer_app).commands:  # type: ignore[attr-defined]
        context, name = parsed(trainer_app, arguments)
    if name in ("train", "plan", "doctor"):
        assert (ROOT / context.params["config"]).is_file()
        plan = [each.replace("--plan.", "--") for each in context.args if each.startswith("--plan.")]
        run = [each for each in context.args if not each.startswith("--plan.")]
        load_config(TrainConfig, ROOT / context.params["config"], run, env_prefix="NO_SUCH_")
        load_config(PlanSettings, None, plan, env_prefix="NO_SUCH_")


def parsed(app: typer.Typer, arguments: list[str]) -> tuple[Any, str]:
    """The innermost command's context and name."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("preceptor", list(arguments))
    name = ""
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return context, name
