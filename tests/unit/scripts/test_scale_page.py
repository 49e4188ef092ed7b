"""docs/scale.md is what the command makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_tables_of_the_page_are_those_that_the_plan_command_writes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "scale_page.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{checked.stderr}\nrun scripts/scale_page.py"
