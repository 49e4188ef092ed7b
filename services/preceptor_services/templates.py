"""Prompt templates: Jinja, less everything that a prompt has no use for. Pure.

In: a template's text. Out: a `Compiled` template. Raises `PromptError` with the line.
Guarantees: a template only puts texts together. Whoever may send a rubric with a request can neither reach into the
process nor keep it busy: there are no calls, no arithmetic, no loops inside loops, only conditions, one loop at a time
over the candidates, and a few filters; nothing is nested deeply, and no text is shown without end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

_FILTERS = {"trim", "lower", "upper", "capitalize", "length", "default", "first", "last"}
_TESTS = {"defined", "undefined", "none"}
_ATTRIBUTES = {"number", "text", "index", "first", "last", "length"}
"""Of a candidate and of `loop`."""
_LOOPED = "candidates"
_DEEPEST = 32
"""Jinja's time grows with the third power of the depth."""
_MOST_OFTEN = 32
"""That a template may name a text, which may be long, in prompts of which there may be many."""
_FENCE = "fence"
"""Is short, and stands around every text and every example."""
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
    except ValueError as error:  # a number of too many digits
        raise PromptError(f"is not a Jinja template: {error}", 1) from None
    named: Counter[str] = Counter()
    for node, depth, loops in _walk(parsed, 0, 0):
        if isinstance(node, nodes.Name):
            named[node.name] += 1
        if (what := _objection(node, depth, loops, named)) is not None:
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
    """The prompt. Raises PromptError for what only rendering can find: an attribute that is not there, a text compared
    with a number."""
    if compiled.parts is not None:
        return "".join([part if isinstance(part, str) else str(values[part.name]) for part in compiled.parts])
    try:
        return compiled.template.render(values)
    except (UndefinedError, TypeError) as error:
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


def _objection(node: nodes.Node, depth: int, loops: int, named: Mapping[str, int]) -> str | None:
    if depth > _DEEPEST:
        return "is nested too deeply"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter {node.name!r} is not allowed: use one of {', '.join(sorted(_FILTERS))}"
    if isinstance(node, nodes.Test) and node.name not in _TESTS:
        return f"the test {node.name!r} is not allowed: use one of {', '.join(sorted(_TESTS))}"
    if isinstance(node, nodes.Getattr) and node.attr not in _ATTRIBUTES:
        return f"the attribute {node.attr!r} is not allowed: use one of {', '.join(sorted(_ATTRIBUTES))}"
    if isinstance(node, nodes.For) and (loops or node.recursive or not _is_looped(node.iter)):
        return f"a loop must run over {_LOOPED}, and not inside another loop"
    if isinstance(node, nodes.Name) and node.name != _FENCE and named[node.name] > _MOST_OFTEN:
        return f"{node.name!r} is named more than {_MOST_OFTEN} times"
    if not isinstance(node, _NODES):
        return f"{type(node).__name__} is not allowed: a prompt has variables, conditions, and loops over candidates"
    return None


def _is_looped(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == _LOOPED


def _walk(node: nodes.Node, depth: int, loops: int) -> Iterator[tuple[nodes.Node, int, int]]:
    """Every node, with its depth and the number of loops around it."""
    yield node, depth, loops
    inside = loops + isinstance(node, nodes.For)
    for child in node.iter_child_nodes():
        yield from _walk(child, depth + 1, inside)


def _line(parsed: nodes.Template, name: str) -> int:
    return next((node.lineno for node in parsed.find_all(nodes.Name) if node.name == name), 1)
