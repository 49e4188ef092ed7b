"""The environment of programs that Preceptor is compared with and that do not share one with it.

Made on first use in `.venv-peers` from requirements/peers.txt; what it holds is compared with that file each time.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FOLDER = ROOT / ".venv-peers"
_WANTED = ROOT / "requirements" / "peers.txt"


def peers() -> Path:
    """The folder with the environment's programs. Raises SystemExit, with what to do, if it cannot be made."""
    stamp = _FOLDER / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != _WANTED.read_text():
        print(f"installing {_WANTED.name} into {_FOLDER.name}", file=sys.stderr)
        venv.create(_FOLDER, clear=True, with_pip=True)
        install = [str(_FOLDER / "bin" / "pip"), "install", "--quiet", "-r", str(_WANTED)]
        if subprocess.run(install, stdout=sys.stderr, check=False).returncode:
            raise SystemExit(f"cannot install {_WANTED}: see above; is a package index to be reached?")
        stamp.write_text(_WANTED.read_text())
    return _FOLDER / "bin"
