"""The YAML files that come with the project: no key is given twice, of which all but the last would be passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDERS = ("configs", "deploy", "services", "trainer")


def repeated(node: yaml.Node | None) -> Iterator[str]:
    """`line: key` of every key that its mapping has had before."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for number, (key, value) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value in keys[:number]:
                yield f"{key.start_mark.line + 1}: {key.value}"
            yield from repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from repeated(value)


def test_a_key_that_is_given_twice_is_found_wherever_it_is() -> None:
    text = "a:\n- {b: 1, c: {b: 2}}\n- {b: 3,\n   b: 4}\na: 5"
    assert [*repeated(yaml.compose(text, yaml.CSafeLoader))] == ["4: b", "5: a"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_key_is_given_twice(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".yaml", ".yml")]
    assert files
    for file in files:
        for document in yaml.compose_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader):
            assert [*repeated(document)] == [], file
