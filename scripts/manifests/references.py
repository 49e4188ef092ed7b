"""Rules about several objects at once: whatever one names must be there in another, and select something.

In: the objects of one overlay. Out: problems, one line each. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scripts.manifests.pods import Spec, containers, label, pod_templates
from scripts.manifests.render import Manifest

Labels = Mapping[str, str]

_NAME = "app.kubernetes.io/name"


def reference_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Of one overlay."""
    pods = [(manifest, template) for manifest in manifests for template in pod_templates(manifest)]
    for rule in (_selectors, _services, _network, _volumes, _scaling, _priorities):
        yield from rule(manifests, pods)


def secrets(manifests: Iterable[Manifest]) -> set[tuple[str, str]]:
    """(secret, key) that somebody must have made before, `*` for all keys; none of them may be among the objects."""
    found: set[tuple[str, str]] = set()
    for manifest in manifests:
        for template in pod_templates(manifest):
            for container in containers(template["spec"]):
                for variable in container.get("env", []):
                    if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                        found.add((reference["name"], reference["key"]))
            found |= {(v["secret"]["secretName"], "*") for v in template["spec"].get("volumes", []) if "secret" in v}
        if manifest["kind"] == "TriggerAuthentication":
            found |= {(reference["name"], reference["key"]) for reference in manifest["spec"]["secretTargetRef"]}
    return found


def matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a label selector takes these labels. An empty one takes all."""
    for requirement in selector.get("matchExpressions", []):
        has, values = labels.get(requirement["key"]), requirement.get("values", [])
        wanted = {
            "In": has in values,
            "NotIn": has not in values,
            "Exists": has is not None,
            "DoesNotExist": has is None,
        }
        if not wanted[requirement["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


Pods = list[tuple[Manifest, Manifest]]
"""Each with the object that makes it."""


def _labels(template: Manifest) -> Labels:
    labels: Labels = template.get("metadata", {}).get("labels", {})
    return labels


def _ports(template: Manifest) -> set[str | int]:
    ports = [port for container in containers(template["spec"]) for port in container.get("ports", [])]
    return {port["name"] for port in ports if "name" in port} | {port["containerPort"] for port in ports}


def _selected(selector: Mapping[str, Any], pods: Pods) -> list[Manifest]:
    return [template for _, template in pods if matches(selector, _labels(template))]


def _selectors(manifests: list[Manifest], pods: Pods) -> Iterator[str]:
    budgets = [one for one in manifests if one["kind"] == "PodDisruptionBudget"]
    for budget in budgets:
        if not _selected(budget["spec"]["selector"], pods):
            yield f"{label(budget)}: selects no pod"
    for manifest, template in pods:
        selector, name = manifest["spec"].get("selector"), _labels(template).get(_NAME)
        if selector and not matches(selector, _labels(template)):
            yield f"{label(manifest)}: its selector does not take its own pods"
        if name is None or manifest["metadata"].get("labels", {}).get(_NAME) != name:
            yield f"{label(manifest)}: it and its pods need the label {_NAME}, and the same"
        several = manifest["kind"] in {"Deployment", "StatefulSet"} and manifest["spec"].get("replicas") != 1
        if several and not any(matches(budget["spec"]["selector"], _labels(template)) for budget in budgets):
            yield f"{label(manifest)}: has no PodDisruptionBudget"


def _services(manifests: list[Manifest], pods: Pods) -> Iterator[str]:
    services = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Service"}
    for service in services.values():
        chosen = _selected({"matchLabels": service["spec"]["selector"]}, pods)
        if not chosen:
            yield f"{label(service)}: selects no pod"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if any(target not in _ports(template) for template in chosen):
                yield f"{label(service)}: port {target} is none of its pods'"
    for manifest, template in pods:
        spec = manifest["spec"]
        named = spec.get("serviceName"), template["spec"].get("subdomain"), spec.get("network", {}).get("subdomain")
        for name in filter(None, named):
            if name not in services:
                yield f"{label(manifest)}: there is no Service {name}"
    for monitor in (one for one in manifests if one["kind"] == "ServiceMonitor"):
        chosen_services = [
            one for one in services.values() if matches(monitor["spec"]["selector"], one["metadata"].get("labels", {}))
        ]
        ports = {port["name"] for service in chosen_services for port in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in ports:
                yield f"{label(monitor)}: port {endpoint['port']} is none of the services it selects"
        for requirement in monitor["spec"]["selector"].get("matchExpressions", []):
            had = {one["metadata"]["labels"].get(requirement["key"]) for one in chosen_services}
            for value in sorted(set(requirement["values"]) - had):
                yield f"{label(monitor)}: no Service has {requirement['key']}={value}"


def _network(manifests: list[Manifest], pods: Pods) -> Iterator[str]:
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    denials = [one["spec"] for one in policies if one["spec"]["podSelector"] == {} and len(one["spec"]) == 2]
    if not any(sorted(one["policyTypes"]) == ["Egress", "Ingress"] for one in denials):
        yield "no NetworkPolicy denies all that is not allowed"
    for policy in policies:
        own = _selected(policy["spec"]["podSelector"], pods)
        if not own:
            yield f"{label(policy)}: selects no pod"
        yield from _all_of(policy, policy["spec"]["podSelector"], pods)
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                yield from _network_rule(policy, rule, side, own, pods)


def _network_rule(policy: Manifest, rule: Manifest, side: str, own: list[Manifest], pods: Pods) -> Iterator[str]:
    if not rule.get(side):
        yield f"{label(policy)}: {side} anywhere"
    others: list[Manifest] = []
    for peer in rule.get(side, []):
        if "podSelector" in peer and "namespaceSelector" not in peer:
            selected = _selected(peer["podSelector"], pods)
            if not selected:
                yield f"{label(policy)}: {side} {peer['podSelector']} selects no pod"
            yield from _all_of(policy, peer["podSelector"], pods)
            others += selected
    listening = own if side == "from" else others
    for port in rule.get("ports", []):
        if listening and not any(port["port"] in _ports(template) for template in listening):
            yield f"{label(policy)}: port {port['port']} is none of those pods'"


def _all_of(policy: Manifest, selector: Mapping[str, Any], pods: Pods) -> Iterator[str]:
    """Every name in a list must be somebody's."""
    for requirement in selector.get("matchExpressions", []):
        for value in requirement.get("values", []):
            if not any(_labels(template).get(requirement["key"]) == value for _, template in pods):
                yield f"{label(policy)}: no pod has {requirement['key']}={value}"


def _volumes(manifests: list[Manifest], pods: Pods) -> Iterator[str]:
    there = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    for manifest, template in pods:
        spec: Spec = template["spec"]
        names = {volume["name"] for volume in spec.get("volumes", [])}
        names |= {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in containers(spec) for mount in container.get("volumeMounts", [])}
        for name in sorted(mounted - names):
            yield f"{label(manifest)}: mounts {name}, which is no volume of it"
        for name in sorted(names - mounted):
            yield f"{label(manifest)}: volume {name} is not mounted"
        for volume in spec.get("volumes", []):
            if config := volume.get("configMap"):
                if ("ConfigMap", config["name"]) not in there:
                    yield f"{label(manifest)}: there is no ConfigMap {config['name']}"
                    continue
                data = there["ConfigMap", config["name"]]["data"]
                for path in _paths(spec, volume["name"]):
                    if path not in data:
                        yield f"{label(manifest)}: ConfigMap {config['name']} has no key {path}"
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and ("PersistentVolumeClaim", claim) not in there:
                yield f"{label(manifest)}: there is no PersistentVolumeClaim {claim}"


def _paths(spec: Spec, volume: str) -> Iterator[str]:
    """The files of a mounted volume that commands, arguments and probes name."""
    for container in containers(spec):
        words = [*container.get("command", []), *container.get("args", [])]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            words += container.get(probe, {}).get("exec", {}).get("command", [])
        for mount in container.get("volumeMounts", []):
            if mount["name"] == volume:
                folder = f"{mount['mountPath']}/"
                yield from (word.rpartition("=")[2].removeprefix(folder) for word in words if folder in word)


def _scaling(manifests: list[Manifest], pods: Pods) -> Iterator[str]:
    there = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    for manifest in manifests:
        if manifest["kind"] not in {"HorizontalPodAutoscaler", "ScaledObject"}:
            continue
        reference = manifest["spec"]["scaleTargetRef"]
        target = there.get((reference.get("kind", "Deployment"), reference["name"]))
        if target is None:
            yield f"{label(manifest)}: there is no {reference.get('kind', 'Deployment')} {reference['name']}"
        elif "replicas" in target["spec"]:
            yield f"{label(target)}: sets replicas, and so undoes what {label(manifest)} does at every apply"
        for trigger in manifest["spec"].get("triggers", []):
            name = trigger.get("authenticationRef", {}).get("name")
            if name and ("TriggerAuthentication", name) not in there:
                yield f"{label(manifest)}: there is no TriggerAuthentication {name}"


def _priorities(manifests: list[Manifest], pods: Pods) -> Iterator[str]:
    there = {one["metadata"]["name"] for one in manifests if one["kind"] == "PriorityClass"}
    for manifest, template in pods:
        name = template["spec"].get("priorityClassName")
        if name and name not in there:
            yield f"{label(manifest)}: there is no PriorityClass {name}"
