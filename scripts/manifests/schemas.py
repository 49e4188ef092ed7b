"""Whether an object has the fields of its kind, and no others.

Kinds of Kubernetes by `kubernetes-validate`, strict; custom resources by `deploy/kubernetes/schemas`, which
`scripts/crd_schemas.py` makes. A kind that neither knows is a problem, as is a name of a field that occurs nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

import kubernetes_validate
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from scripts.manifests.pods import label
from scripts.manifests.render import KUBERNETES, Manifest

VERSIONS = ("1.32", "1.37")
"""Of Kubernetes: the oldest that the manifests are for, and the newest whose schemas are here."""

_KEDA_REDIS_STREAMS = {"stream", "consumerGroup", "lagCount", "streamLength", "pendingEntriesCount", "databaseIndex"}
_KEDA_REDIS_STREAMS |= {"activationLagCount", "enableTLS", "address", "host", "port", "username"}
"""Metadata of KEDA's scaler, which its schema leaves open."""


def schema_problems(manifest: Manifest) -> Iterator[str]:
    """One line for each."""
    kind = str(manifest.get("kind"))
    if (own := _schemas().get((str(manifest.get("apiVersion")), kind))) is None:
        yield from _of_kubernetes(manifest)
        return
    if error := best_match(own.iter_errors(manifest)):
        yield f"{label(manifest)}: {'.'.join(map(str, error.path))}: {error.message}"
    elif kind == "JobSet":
        for job in manifest["spec"]["replicatedJobs"]:
            template = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
            yield from _of_kubernetes(template)
    elif kind == "ScaledObject":
        for trigger in manifest["spec"]["triggers"]:
            known = _KEDA_REDIS_STREAMS if trigger["type"] == "redis-streams" else set()
            for key in sorted(set(trigger["metadata"]) - known):
                yield f"{label(manifest)}: a trigger of type {trigger['type']} takes no {key!r}"


def _of_kubernetes(manifest: Manifest) -> Iterator[str]:
    if problem := _problem(json.dumps(manifest)):
        yield f"{label(manifest)}: {problem}"


@cache  # overlays have most objects in common, and every look takes a tenth of a second
def _problem(manifest_json: str) -> str | None:
    manifest = json.loads(manifest_json)
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            return f"no schema knows this kind ({manifest.get('apiVersion')})"
        except kubernetes_validate.ValidationError as error:
            return f"{'.'.join(map(str, error.path))}: {error.message} (Kubernetes {version})"
    return None


@cache
def _schemas() -> dict[tuple[str, str], Draft202012Validator]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((KUBERNETES / "schemas").glob("*.json"))]
    return {
        (one["properties"]["apiVersion"]["const"], one["properties"]["kind"]["const"]): Draft202012Validator(one)
        for one in found
    }
