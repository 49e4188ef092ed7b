"""What NetworkPolicies allow between the pods of an overlay. Pure.

In: objects, two ends. Out: whether a connection can be made. As Kubernetes has it: a pod that some policy selects for
a direction may do in that direction what its policies allow together, and no more; both ends have to allow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scripts.manifests.references import matches
from scripts.manifests.render import Manifest


@dataclass(frozen=True)
class Pod:
    """One end of a connection."""

    labels: Mapping[str, str]
    namespace: str = "preceptor"

    @classmethod
    def named(cls, name: str, namespace: str = "preceptor") -> Pod:
        """By the label that all pods have."""
        return cls({"app.kubernetes.io/name": name}, namespace)


def may_connect(manifests: Iterable[Manifest], source: Pod, target: Pod, port: str) -> bool:
    """To the port called `port`. A pod of another namespace is not held back by policies of its own."""
    policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
    leaves = source.namespace != "preceptor" or _allowed(policies, "Egress", source, target, port)
    return leaves and _allowed(policies, "Ingress", target, source, port)


def _allowed(
    policies: list[dict[str, Any]], direction: Literal["Ingress", "Egress"], own: Pod, other: Pod, port: str
) -> bool:
    of_own = [one for one in policies if direction in one["policyTypes"] and matches(one["podSelector"], own.labels)]
    rules = [rule for one in of_own for rule in one.get(direction.lower(), [])]
    return not of_own or any(_takes(rule, direction, other, port) for rule in rules)


def _takes(rule: dict[str, Any], direction: str, other: Pod, port: str) -> bool:
    peers = rule.get("from" if direction == "Ingress" else "to")
    ports = rule.get("ports")
    return (peers is None or any(_is(peer, other) for peer in peers)) and (
        ports is None or any(one["port"] == port for one in ports)
    )


def _is(peer: dict[str, Any], other: Pod) -> bool:
    if "ipBlock" in peer:  # the world outside: no pod
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}):
            return False
    elif other.namespace != "preceptor":
        return False
    return matches(peer.get("podSelector", {}), other.labels)
