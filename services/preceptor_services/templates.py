"""Prompt templates: Jinja, less everything that a prompt has no use for. Pure.

In: a template's text. Out: a `Compiled` template. Raises `PromptError` with the line.
Guarantees: a template only puts texts together. Whoever may send a rubric with a request can neither reach into the
process nor keep it busy: there are no calls, no arithmetic, no loops inside loops, only conditions, one loop at a time
over what is given, and a few filters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

_FILTERS = {"trim", "lower", "upper", "capitalize", "length", "default", "first", "last"}
_TESTS = {"defined", "undefined", "none"}
_ATTRIBUTES = {"number", "text", "index", "first", "last", "length"}
"""Of a candidate and of `loop`."""
_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Const,
    nodes.If,
    nodes.CondExpr,
    nodes.For,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Filter,
    nodes.Test,
)
_JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)
_JINJA.globals.clear()  # prompts need none of them, and every rendering would go through them


class PromptError(ValueError):
    """A template cannot be used; `line` is counted from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class _Variable:
    name: str


@dataclass(frozen=True)
class Compiled:
    """A template; `parts` is all of it if it only joins texts and variables, which takes a tenth of Jinja's time."""

    template: Template
    parts: tuple[str | _Variable, ...] | None


def compile_prompt(text: str, variables: Collection[str]) -> Compiled:
    """The template, which may use `variables`. Raises PromptError."""
    try:
        parsed = _JINJA.parse(text)
    except TemplateSyntaxError as error:
        raise PromptError(f"is not a Jinja template: {error.message}", error.lineno) from None
    except RecursionError:
        raise PromptError("is nested too deeply", 1) from None
    for node, loops in _walk(parsed, 0):
        if (what := _objection(node, loops)) is not None:
            raise PromptError(what, node.lineno)
    if unknown := sorted(find_undeclared_variables(parsed) - set(variables)):
        raise PromptError(
            f"{unknown[0]!r} is undefined: a template may use {', '.join(sorted(variables))}", _line(parsed, unknown[0])
        )
    try:
        return Compiled(_JINJA.from_string(parsed), _plain_parts(parsed))
    except TemplateSyntaxError as error:
        raise PromptError(f"is not a Jinja template: {error.message}", error.lineno) from None


def render(compiled: Compiled, **values: object) -> str:
    """The prompt. Raises PromptError for what only rendering can find: an attribute that is not there."""
    if compiled.parts is not None:
        return "".join([part if isinstance(part, str) else str(values[part.name]) for part in compiled.parts])
    try:
        return compiled.template.render(values)
    except UndefinedError as error:
        raise PromptError(str(error), 1) from None


def _plain_parts(parsed: nodes.Template) -> tuple[str | _Variable, ...] | None:
    parts: list[str | _Variable] = []
    for output in parsed.body:
        for node in output.iter_child_nodes():
            match output, node:
                case nodes.Output(), nodes.TemplateData():
                    parts.append(node.data)
                case nodes.Output(), nodes.Name():
                    parts.append(_Variable(node.name))
                case _:
                    return None
    return tuple(parts)


def _objection(node: nodes.Node, loops: int) -> str | None:
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter {node.name!r} is not allowed: use one of {', '.join(sorted(_FILTERS))}"
    if isinstance(node, nodes.Test) and node.name not in _TESTS:
        return f"the test {node.name!r} is not allowed: use one of {', '.join(sorted(_TESTS))}"
    if isinstance(node, nodes.Getattr) and node.attr not in _ATTRIBUTES:
        return f"the attribute {node.attr!r} is not allowed: use one of {', '.join(sorted(_ATTRIBUTES))}"
    if isinstance(node, nodes.For) and (loops or node.recursive or not isinstance(node.iter, nodes.Name)):
        return "a loop must run over a plain variable, and not inside another loop"
    if not isinstance(node, _NODES):
        return f"{type(node).__name__} is not allowed: a prompt has variables, conditions, and loops over candidates"
    return None


def _walk(node: nodes.Node, loops: int) -> Iterator[tuple[nodes.Node, int]]:
    """Every node, with the number of loops around it."""
    yield node, loops
    inside = loops + isinstance(node, nodes.For)
    for child in node.iter_child_nodes():
        yield from _walk(child, inside)


def _line(parsed: nodes.Template, name: str) -> int:
    return next((node.lineno for node in parsed.find_all(nodes.Name) if node.name == name), 1)
