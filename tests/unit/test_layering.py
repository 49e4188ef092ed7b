"""The arrows between the packages: services -> client <- trainer, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "preceptor_client": ROOT / "client" / "preceptor_client",
    "preceptor_services": ROOT / "services" / "preceptor_services",
    "preceptor_trainer": ROOT / "trainer" / "preceptor_trainer",
}
FORBIDDEN = {
    "preceptor_client": {"preceptor_services", "preceptor_trainer", "torch", "transformers", "fastapi"},
    "preceptor_services": {"preceptor_trainer", "torch", "transformers"},
    "preceptor_trainer": {"preceptor_services", "fastapi"},
}
ORACLE = "preceptor_trainer.nano.oracle"
MAY_IMPORT_THE_ORACLE = (PACKAGES["preceptor_trainer"] / "evaluation", PACKAGES["preceptor_trainer"] / "demo")


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports anywhere in it, by full name; `from a import b` gives `a` and `a.b`."""
    package = path.relative_to(
        next(root.parent for root in PACKAGES.values() if path.is_relative_to(root))
    ).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module or "") if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def sources() -> list[Path]:
    return [path for root in PACKAGES.values() for path in sorted(root.rglob("*.py"))]


def test_the_sources_are_there_and_their_imports_are_read() -> None:
    assert len(sources()) > 30
    assert "preceptor_client.contract" in set(imports(PACKAGES["preceptor_services"] / "judging" / "judge.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_what_lies_beyond_its_arrows(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted(PACKAGES[package].rglob("*.py"))
        for module in imports(path)
        if module.partition(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


def test_only_evaluation_and_demo_import_the_oracle() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if any(module == ORACLE or module.startswith(f"{ORACLE}.") for module in imports(path))
        and not any(path.is_relative_to(folder) for folder in MAY_IMPORT_THE_ORACLE)
    ]
    assert wrong == []


def test_nothing_names_the_oracle_in_a_way_that_imports_hide() -> None:
    """No `import_module("...oracle")`: no other file may so much as spell its name."""
    oracle = PACKAGES["preceptor_trainer"] / "nano" / "oracle.py"
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path != oracle
        and "nano.oracle" in path.read_text(encoding="utf-8")
        and not any(path.is_relative_to(folder) for folder in MAY_IMPORT_THE_ORACLE)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("preceptor_client", ("torch", "redis", "fastapi", "preceptor_services", "preceptor_trainer")),
        ("preceptor_client.cli.main", ("torch", "fastapi", "preceptor_services", "preceptor_trainer")),
        ("preceptor_services.app", ("torch", "transformers", "preceptor_trainer")),
        ("preceptor_services.worker", ("torch", "transformers", "preceptor_trainer")),
        ("preceptor_trainer.run", ("preceptor_services", "fastapi", ORACLE)),
    ],
)
def test_importing_a_part_loads_nothing_it_may_not_need(module: str, absent: tuple[str, ...]) -> None:
    """Also what is reached through other packages."""
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
