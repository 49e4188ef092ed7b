#!/usr/bin/env python3
"""Makes what `docker compose` needs and no repository may hold: API keys and passwords, new for this checkout.

    python3 scripts/compose_env.py      (makes what is missing; to have new ones, remove the files)

Standard library only, so that Docker and any Python from 3.9 are enough. Out: `.env`, for its owner alone, which
compose reads by itself; and in `deploy/docker/secrets`, a folder for its owner alone, the files that containers are
given: the keys file of the services (hashes, as `preceptor keys` writes it) and Grafana's password. The containers'
users are not the folder's owner, hence the files in it are readable by all who get past the folder. Nothing that exists
is changed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_ENV = """\
# Made by scripts/compose_env.py; read by `docker compose`. Keep it to yourself.
# The key for your own calls: `set -a; . ./.env` gives it to `preceptor judge` and the SDK.
PRECEPTOR_API_KEY={local}
# The trainer's key at the rewrite service.
PRECEPTOR_TRAINER_KEY={trainer}
# Prometheus and Grafana come with the rest.
COMPOSE_PROFILES=observability
# PyTorch's index of CPU builds, from which the images take torch.
PIP_EXTRA_INDEX_URL={index}
"""


def main(root: Path = ROOT) -> int:
    """Make the files under `root`. Returns the exit status."""
    folder = root / "deploy" / "docker" / "secrets"
    env, keys = root / ".env", folder / "keys.yaml"
    if env.exists() != keys.exists():
        print(f"{env} and {keys} belong together, and one is missing: remove the other one", file=sys.stderr)
        return 1
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not env.exists():
        made = {name: f"pcp_{secrets.token_urlsafe(32)}" for name in ("local", "trainer")}
        _write(keys, _keys_file(made), 0o644)
        _write(env, _ENV.format(**made, index=os.environ.get("PIP_EXTRA_INDEX_URL", "")), 0o600)
    password = folder / "grafana-password"
    if not password.exists():
        _write(password, secrets.token_urlsafe(24), 0o644)
    print(f"{env} and {folder} are there; Grafana's user is admin, its password in {password}")
    return 0


def _keys_file(keys: dict[str, str]) -> str:
    """What `preceptor keys add` would have written."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    priorities = {"trainer": "training"}
    return "keys:\n" + "".join(
        f"- name: {name}\n"
        f"  hash: sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"
        f"  priority: {priorities.get(name, 'interactive')}\n"
        f"  created_at: '{now}'\n"
        for name, key in keys.items()
    )


def _write(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
