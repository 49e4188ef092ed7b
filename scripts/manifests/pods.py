"""Rules that a pod is held to wherever it comes from: what Pod Security calls restricted, and what operating needs.

In: an object. Out: problems, one line each. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.manifests.render import Manifest

Spec = dict[str, Any]

SERVES_FOR_EVER = frozenset({"Deployment", "StatefulSet"})
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def label(manifest: Manifest) -> str:
    """How messages name an object."""
    return f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"


def pod_templates(manifest: Manifest) -> list[Manifest]:
    """The templates of the pods that an object makes, with `metadata` and `spec`."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "JobSet":
        return [job["template"]["spec"]["template"] for job in spec["replicatedJobs"]]
    return [spec["template"]] if manifest["kind"] in {*SERVES_FOR_EVER, "Job", "DaemonSet"} else []


def containers(spec: Spec) -> list[Spec]:
    """All of a pod, those that run before the others first."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def pod_problems(manifest: Manifest) -> Iterator[str]:
    """Of every pod that `manifest` makes."""
    for template in pod_templates(manifest):
        spec = template["spec"]
        found = [*_pod(spec)]
        for container in containers(spec):
            found += [f"container {container['name']}: {problem}" for problem in _container(container, spec)]
        if manifest["kind"] in SERVES_FOR_EVER:
            for container in spec["containers"]:
                found += [f"container {container['name']}: {problem}" for problem in _probes(container)]
        yield from (f"{label(manifest)}: {problem}" for problem in found)


def _pod(spec: Spec) -> Iterator[str]:
    if spec.get("automountServiceAccountToken") is not False:
        yield "mounts a service account's token: set automountServiceAccountToken to false"
    if "priorityClassName" not in spec:
        yield "has no priorityClassName"
    if "terminationGracePeriodSeconds" not in spec and spec.get("restartPolicy", "Always") == "Always":
        yield "has no terminationGracePeriodSeconds"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"has {field}"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a path of the host"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no sizeLimit"


def _container(container: Spec, spec: Spec) -> Iterator[str]:
    image = container.get("image", "")
    _, colon, tag = image.rpartition("/")[2].partition("@")[0].partition(":")
    if not ("@sha256:" in image or (colon and tag != "latest")):
        yield f"image {image} has no fixed version"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        if missing := [name for name in _RESOURCES if name not in resources.get(kind, {})]:
            yield f"has no {kind} of {', '.join(missing)}"
    if resources.get("requests", {}).get("memory") != resources.get("limits", {}).get("memory"):
        first, last = (resources.get(kind, {}).get("memory") for kind in ("requests", "limits"))
        if first and last and quantity(first) > quantity(last):
            yield f"requests more memory ({first}) than its limit ({last})"
    own, pod = container.get("securityContext", {}), spec.get("securityContext", {})
    either = {**pod, **own}
    if either.get("runAsNonRoot") is not True or either.get("runAsUser") in (None, 0):
        yield "may run as root: set runAsNonRoot, and runAsUser to a number that is not 0"
    if either.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccompProfile"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "may gain privileges: set allowPrivilegeEscalation to false"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
        yield "keeps capabilities: drop ALL"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "can write to its image: set readOnlyRootFilesystem"


def _probes(container: Spec) -> Iterator[str]:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe not in container:
            yield f"has no {probe}"


def quantity(text: str) -> float:
    """Bytes or CPUs, as Kubernetes writes them."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * units.get(unit, 1)
