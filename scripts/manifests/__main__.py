"""`python -m scripts.manifests [DIRECTORY ...]`: one line a problem, status 1 if there is any."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.manifests.pods import label, pod_problems
from scripts.manifests.references import reference_problems, secrets
from scripts.manifests.render import DIRECTORIES, Manifest, RenderError, render
from scripts.manifests.schemas import schema_problems


def problems(manifests: list[Manifest]) -> Iterator[str]:
    """All that is wrong with what an overlay builds. Rules read fields, so they wait until the schemas hold."""
    found = [problem for manifest in manifests for problem in schema_problems(manifest)]
    if not found:
        found += [problem for manifest in manifests for problem in pod_problems(manifest)]
        found += reference_problems(manifests)
        found += [f"{label(one)}: is not to be written down" for one in manifests if one["kind"] == "Secret"]
    yield from found


def main(arguments: list[str]) -> int:
    """Exit status."""
    status = 0
    for directory in [Path(argument) for argument in arguments] or DIRECTORIES:
        try:
            manifests = render(directory)
        except RenderError as error:
            print(error, file=sys.stderr)
            status = 1
            continue
        found = list(problems(manifests))
        for problem in found:
            print(f"{directory}: {problem}", file=sys.stderr)
        wanted = ", ".join(sorted({name for name, _ in secrets(manifests)}))
        print(f"{directory}: {len(manifests)} objects, {len(found)} problems; secrets to be made first: {wanted}")
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
