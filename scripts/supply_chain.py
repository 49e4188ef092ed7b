#!/usr/bin/env python3
"""What Preceptor is made of: known vulnerabilities, a bill of materials, licences.

    python scripts/supply_chain.py audit        the pinned versions, asked after at PyPI's vulnerability service
    python scripts/supply_chain.py sbom         dist/sbom.cdx.json, CycloneDX, of this checkout's environment
    python scripts/supply_chain.py licences     dist/licences.md, and status 1 if one is unknown or does not fit

The tools are no dependency of anything: they live in `.venv-supply-chain`, made on first use from
requirements/supply-chain.txt. Status 0, 1 for what was found, 2 if it could not be looked for.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
TOOLS = ROOT / ".venv-supply-chain"
PYTHON = ROOT / ".venv" / "bin" / "python"
DIST = ROOT / "dist"

AUDITED = (
    ("project.lock", "torch.txt", "vllm-cpu.lock", "vllm-cuda.txt"),
    ("images/trainer-cuda.lock",),
    ("peers.txt",),
    ("docs.lock",),
    ("supply-chain.txt",),
)
"""All that anybody runs, by environment: of a package pip-audit takes one version at a time, with hashes throughout or
without. The versions that vLLM for CUDA brings along are its own, and its image's."""

IGNORED: Mapping[str, str] = {}
"""Vulnerabilities that do not concern Preceptor: id -> why."""

FITTING = frozenset(
    """0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 CNRI-Python ISC MIT MIT-0 MIT-CMU MPL-2.0 PSF-2.0
    Unlicense Zlib""".split()
)
"""Permissive, or (MPL) copyleft for their own files alone."""

ALIASES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The MIT License (MIT)": "MIT",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""How packages name these."""

NO_LICENCES = frozenset({"DFSG approved"})
"""What packages list among their licences."""

EXCEPTIONS = {
    "axe-playwright-python": "MIT by its licence file, of which its metadata says nothing; tests only",
    "chardet": "LGPL: imported as it is, never changed nor linked into anything",
    "intel-cmplr-lib-ur": "Intel's runtime, with vLLM for CPU: may be passed on unchanged",
    "intel-openmp": "Intel's runtime, with vLLM for CPU: may be passed on unchanged",
    "oss-harmony": "Apache-2.0 by its licence file, of which its metadata says nothing; comes with vLLM",
    "pycountry": "LGPL: imported by lm-eval's tasks as it is, in no image",
    "supervisor": "a licence of its own, derived from BSD",
    "vllm": "the name alone, for vllm-cpu (requirements/vllm-cpu-alias)",
}
"""Packages whose licence does not fit, or is not told: why that is all right."""

OURS = "preceptor"


class ToolError(Exception):
    """A tool could not do its work; the text says why."""


def licence_problems(packages: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Of `Name` and `License` of each: one line for each that is neither fitting nor an exception."""
    for package in packages:
        name, licence = package["Name"], package["License"].strip()
        if name not in EXCEPTIONS and name != OURS and not fits(licence):
            yield f"{name}: {first_line(licence) or 'no licence'}: see whether it fits, then list it in EXCEPTIONS"


def fits(licence: str) -> bool:
    """Whether all parts of an expression, or of a list, do. Of alternatives one is enough."""
    parts = set(re.split(r"\s+AND\s+|;\s*", first_line(licence))) - NO_LICENCES
    return bool(parts) and all(any(_known(one) in FITTING for one in re.split(r"\s+OR\s+", part)) for part in parts)


def first_line(text: str) -> str:
    """Some packages give their licence's whole text."""
    return text.strip().partition("\n")[0].strip()


def _known(name: str) -> str:
    bare = name.strip("() ")  # of an expression
    return ALIASES.get(name) or ALIASES.get(bare, bare)


def tool(name: str) -> str:
    """The path of a tool; the first call installs them all. Raises `ToolError`."""
    wanted = (REQUIREMENTS / "supply-chain.txt").read_text(encoding="utf-8")
    stamp = TOOLS / "requirements.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing {REQUIREMENTS.name}/supply-chain.txt into {TOOLS.name}", file=sys.stderr)
        venv.create(TOOLS, clear=True, with_pip=True)
        pip = [str(TOOLS / "bin" / "pip"), "install", "-q", "--no-deps", "-r", str(REQUIREMENTS / "supply-chain.txt")]
        if subprocess.run(pip, stdout=sys.stderr, check=False).returncode:
            raise ToolError("the tools could not be installed: see above; is a package index to be reached?")
        stamp.write_text(wanted, encoding="utf-8")
    return str(TOOLS / "bin" / name)


def audit() -> int:
    """Ask after every pinned version. A version that the service does not know counts as not looked at."""
    return max([_audit(names) for names in AUDITED])


def _audit(names: Iterable[str]) -> int:
    command = [tool("pip-audit"), "--strict", "--no-deps", "--disable-pip", "--progress-spinner=off"]
    command += [word for name in names for word in ("-r", str(REQUIREMENTS / name))]
    command += [word for name in IGNORED for word in ("--ignore-vuln", name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    if re.search(r"Found \d+ known vulnerabilit", done.stderr):
        print(last_line(done.stderr), file=sys.stderr)
        return 1
    if done.returncode:
        raise ToolError(f"the vulnerability service was not to be asked: {last_line(done.stderr)}")
    print(last_line(done.stderr), file=sys.stderr)
    return 0


def sbom() -> int:
    """Write the bill of materials."""
    DIST.mkdir(exist_ok=True)
    out = DIST / "sbom.cdx.json"
    command = [tool("cyclonedx-py"), "environment", str(PYTHON), "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--output-reproducible", "--output-format", "JSON", "--output-file", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"no bill of materials: {last_line(done.stderr)}")
    components = json.loads(out.read_text(encoding="utf-8"))["components"]
    print(f"{out.relative_to(ROOT)}: {len(components)} components")
    return 0


def licences() -> int:
    """Write the list, and check it."""
    command = [tool("pip-licenses"), "--python", str(PYTHON), "--from=mixed", "--format=json", "--with-urls"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"no licences: {last_line(done.stderr)}")
    packages = sorted(json.loads(done.stdout), key=lambda package: package["Name"].lower())
    DIST.mkdir(exist_ok=True)
    rows = [f"| {p['Name']} | {p['Version']} | {first_line(p['License'])} | {p['URL']} |" for p in packages]
    out = DIST / "licences.md"
    head = ["| package | version | licence | home |", "|---|---|---|---|"]
    out.write_text("\n".join([*head, *rows, ""]), encoding="utf-8")
    problems = list(licence_problems(packages))
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    print(f"{out.relative_to(ROOT)}: {len(packages)} packages, {len(problems)} whose licence does not fit")
    return 1 if problems else 0


def last_line(text: str) -> str:
    """What a tool said at the end."""
    lines = [line for line in text.splitlines() if line.strip()]
    return re.sub(r"^ERROR:[\w.]+:", "", lines[-1].strip()) if lines else "no word"


COMMANDS = {"audit": audit, "sbom": sbom, "licences": licences}


def main(arguments: list[str]) -> int:
    """Exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(f"supply-chain: say one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if not PYTHON.exists():
        print("supply-chain: no environment to look at: make setup", file=sys.stderr)
        return 2
    try:
        return COMMANDS[arguments[0]]()
    except ToolError as error:
        print(f"supply-chain: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
