#!/usr/bin/env python3
"""Makes `deploy/kubernetes/schemas`: strict JSON schemas of the custom resources that the manifests use.

    python scripts/crd_schemas.py

The kinds' fields come from pydantic models that others generate from the projects' own definitions and publish on PyPI;
they are installed, by the versions below, into an environment that is thrown away. Out: a JSON schema for each kind, in
which a field that the kind does not have is an error. Pods inside a kind are left open: `scripts.manifests` checks
those by the schemas of Kubernetes. Needs the network; run it to take newer versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes" / "schemas"
PACKAGES = (
    "cloudcoil-models-keda==2.16.1.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
    "kubeflow-trainer-api==2.3.0",
)
KINDS = {
    ("keda.sh/v1alpha1", "ScaledObject"): "cloudcoil.models.keda.v1alpha1:ScaledObject",
    ("keda.sh/v1alpha1", "TriggerAuthentication"): "cloudcoil.models.keda.v1alpha1:TriggerAuthentication",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "cloudcoil.models.prometheus_operator.v1:ServiceMonitor",
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): "kubeflow_trainer_api.models.jobset_v1alpha2_job_set:JobsetV1alpha2JobSet",
}
OPEN = {"IoK8sApiBatchV1JobTemplateSpec"}
"""What another schema is there for."""
_PRINT = """
import importlib, json, sys
module, name = sys.argv[1].split(":")
print(json.dumps(getattr(importlib.import_module(module), name).model_json_schema(by_alias=True)))
"""


def main() -> None:
    """Write every schema."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        for (version, kind), model in KINDS.items():
            shown = subprocess.run([python, "-c", _PRINT, model], check=True, capture_output=True, text=True).stdout
            schema = strict(json.loads(shown), version, kind)
            path = OUT / f"{kind.lower()}.json"
            path.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(path.relative_to(OUT.parents[2]))


def strict(schema: dict[str, Any], version: str, kind: str) -> dict[str, Any]:
    """What `kind`'s own model says of `spec`, with nothing beside it; metadata is checked by rules of our own."""
    definitions = {name: _closed({"type": "object"} if name in OPEN else one) for name, one in schema["$defs"].items()}
    spec = _closed(schema["properties"]["spec"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": version},
            "kind": {"const": kind},
            "metadata": {"type": "object", "required": ["name"]},
            "spec": spec,
        },
        "$defs": {name: definitions[name] for name in sorted(_reached(spec, definitions))},
    }


def _closed(node: Any) -> Any:
    """Without titles and prose, and without room for fields that are not named."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items() if key not in ("title", "description", "default")}
    if "properties" in node:  # here the keys are names of fields, whatever they are called
        closed["properties"] = {name: _closed(field) for name, field in node["properties"].items()}
        closed["additionalProperties"] = False
    return closed


def _reached(node: Any, definitions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack += one
        elif isinstance(one, dict):
            name = str(one.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                stack.append(definitions[name])
            stack += one.values()
    return found


if __name__ == "__main__":
    sys.exit(main())
