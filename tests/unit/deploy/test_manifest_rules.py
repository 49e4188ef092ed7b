"""The rules catch what they are for: each is shown a manifest that is wrong in one place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from scripts.manifests.__main__ import problems
from scripts.manifests.network import Pod, may_connect
from scripts.manifests.pods import pod_problems
from scripts.manifests.references import matches, reference_problems
from scripts.manifests.render import Manifest
from scripts.manifests.schemas import schema_problems

Change = Callable[[Any], object]
JUDGE, WORKER, TRAINER = ("Deployment", "judge"), ("Deployment", "worker"), ("Job", "trainer")


def changed(manifests: list[Manifest], which: tuple[str, str], change: Change) -> tuple[list[Manifest], Manifest]:
    """A copy with one object changed, and that object."""
    copied = copy.deepcopy(manifests)
    [found] = [each for each in copied if (each["kind"], each["metadata"]["name"]) == which]
    change(found)
    return copied, found


def pod(manifest: Manifest) -> Any:
    return manifest["spec"]["template"]["spec"]


def first(manifest: Manifest) -> Any:
    return pod(manifest)["containers"][0]


@pytest.mark.parametrize(
    ("which", "change", "problem"),
    [
        (JUDGE, lambda m: m["spec"].update(replica=3), "'replica' was unexpected"),
        (JUDGE, lambda m: first(m).update(imagePullPolice="Always"), "'imagePullPolice' was unexpected"),
        (JUDGE, lambda m: m["spec"].update(replicas="three"), "'three' is not of type 'integer'"),
        (JUDGE, lambda m: m.update(kind="Deploiment"), "no schema knows this kind (apps/v1)"),
        (JUDGE, lambda m: m.update(apiVersion="apps/v1beta1"), "no schema knows this kind (apps/v1beta1)"),
        (JUDGE, lambda m: m["spec"].pop("selector"), "'selector' is a required property"),
        (("ScaledObject", "worker"), lambda m: m["spec"].update(minReplicas=0), "'minReplicas' was unexpected"),
        (("ScaledObject", "worker"), lambda m: m["spec"].pop("triggers"), "'triggers' is a required property"),
        (
            ("ScaledObject", "worker"),
            lambda m: m["spec"]["triggers"][0]["metadata"].update(lag="4"),
            "a trigger of type redis-streams takes no 'lag'",
        ),
        (("ScaledObject", "worker"), lambda m: m.update(apiVersion="keda.sh/v2"), "no schema knows this kind"),
        (
            ("TriggerAuthentication", "redis"),
            lambda m: m["spec"]["secretTargetRef"][0].update(secret="x"),
            "'secret' was unexpected",
        ),
        (
            ("ServiceMonitor", "preceptor"),
            lambda m: m["spec"]["endpoints"][0].update(intervals="15s"),
            "'intervals' was unexpected",
        ),
    ],
)
def test_an_unknown_field_kind_or_type_is_caught(
    gpu: list[Manifest], which: tuple[str, str], change: Change, problem: str
) -> None:
    _, manifest = changed(gpu, which, change)
    [found] = schema_problems(manifest)
    assert problem in found


def test_what_is_inside_a_jobset_is_held_to_its_schema_as_well() -> None:
    jobset: Any = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "a"},
        "spec": {"replicatedJobs": [{"name": "b", "template": {"spec": {"template": {"spec": {"containers": []}}}}}]},
    }
    assert list(schema_problems(jobset)) == []
    jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["complettions"] = 2
    assert "'complettions' was unexpected" in next(schema_problems(jobset))
    del jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["complettions"]
    jobset["spec"]["maxRestarts"] = 3
    assert "'maxRestarts' was unexpected" in next(schema_problems(jobset))


@pytest.mark.parametrize(
    ("which", "change", "problem"),
    [
        (JUDGE, lambda m: first(m).update(image="preceptor/services:latest"), "has no fixed version"),
        (JUDGE, lambda m: first(m).update(image="registry:5000/preceptor/services"), "has no fixed version"),
        (JUDGE, lambda m: first(m)["resources"].pop("limits"), "has no limits of cpu, memory, ephemeral-storage"),
        (JUDGE, lambda m: first(m)["resources"]["requests"].pop("memory"), "has no requests of memory"),
        (JUDGE, lambda m: first(m)["resources"]["requests"].update(memory="2Gi"), "requests more memory"),
        (JUDGE, lambda m: pod(m)["securityContext"].update(runAsUser=0), "may run as root"),
        (JUDGE, lambda m: pod(m)["securityContext"].pop("runAsNonRoot"), "may run as root"),
        (JUDGE, lambda m: first(m)["securityContext"].update(runAsUser=0), "may run as root"),
        (JUDGE, lambda m: pod(m)["securityContext"].pop("seccompProfile"), "has no seccompProfile"),
        (JUDGE, lambda m: first(m)["securityContext"].pop("readOnlyRootFilesystem"), "can write to its image"),
        (JUDGE, lambda m: first(m)["securityContext"].pop("allowPrivilegeEscalation"), "may gain privileges"),
        (JUDGE, lambda m: first(m)["securityContext"].update(privileged=True), "may gain privileges"),
        (JUDGE, lambda m: first(m)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "keeps capabilities"),
        (JUDGE, lambda m: pod(m).pop("automountServiceAccountToken"), "mounts a service account's token"),
        (JUDGE, lambda m: pod(m).update(hostNetwork=True), "has hostNetwork"),
        (JUDGE, lambda m: pod(m)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "is a path of the host"),
        (JUDGE, lambda m: pod(m)["volumes"].append({"name": "x", "emptyDir": {}}), "volume x has no sizeLimit"),
        (JUDGE, lambda m: first(m).pop("startupProbe"), "has no startupProbe"),
        (JUDGE, lambda m: pod(m).pop("terminationGracePeriodSeconds"), "has no terminationGracePeriodSeconds"),
        (TRAINER, lambda m: pod(m).pop("priorityClassName"), "has no priorityClassName"),
        (TRAINER, lambda m: pod(m)["initContainers"][0]["securityContext"].pop("capabilities"), "keeps capabilities"),
    ],
)
def test_a_careless_pod_is_caught(gpu: list[Manifest], which: tuple[str, str], change: Change, problem: str) -> None:
    _, manifest = changed(gpu, which, change)
    [found] = pod_problems(manifest)
    assert problem in found


@pytest.mark.parametrize(
    ("which", "change", "problem"),
    [
        (
            JUDGE,
            lambda m: m["spec"]["template"]["metadata"]["labels"].update({"app.kubernetes.io/name": "judged"}),
            "its selector does not take its own pods",
        ),
        (
            JUDGE,
            lambda m: m["metadata"]["labels"].update({"app.kubernetes.io/name": "x"}),
            "need the label app.kubernetes.io/name, and the same",
        ),
        (("Service", "judge"), lambda m: m["spec"]["ports"][0].update(targetPort="https"), "port https is none of"),
        (("Service", "judge"), lambda m: m["spec"].update(selector={"a": "b"}), "Service judge: selects no pod"),
        (("Service", "trainer"), lambda m: m["metadata"].update(name="ranks"), "there is no Service trainer"),
        (
            ("ServiceMonitor", "preceptor"),
            lambda m: m["spec"]["endpoints"][1].update(port="prometheus"),
            "port prometheus is none of the services it selects",
        ),
        (
            ("Service", "trainer"),
            lambda m: m["metadata"].pop("labels"),
            "no Service has app.kubernetes.io/name=trainer",
        ),
        (
            ("NetworkPolicy", "policy-from-trainer"),
            lambda m: m["spec"].update(podSelector={"matchLabels": {"app.kubernetes.io/name": "polcy"}}),
            "NetworkPolicy policy-from-trainer: selects no pod",
        ),
        (
            ("NetworkPolicy", "policy-from-trainer"),
            lambda m: m["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"].update(a="b"),
            "selects no pod",
        ),
        (
            ("NetworkPolicy", "policy-from-trainer"),
            lambda m: m["spec"]["ingress"][0].update({"from": []}),
            "from anywhere",
        ),
        (
            ("NetworkPolicy", "policy-from-trainer"),
            lambda m: m["spec"]["ingress"][0]["ports"][0].update(port="grpc"),
            "port grpc is none of those pods'",
        ),
        (
            ("NetworkPolicy", "services-to-teacher"),
            lambda m: m["spec"]["podSelector"]["matchExpressions"][0]["values"].append("workers"),
            "no pod has app.kubernetes.io/name=workers",
        ),
        (
            ("NetworkPolicy", "default-deny"),
            lambda m: m["spec"].update(policyTypes=["Ingress"]),
            "no NetworkPolicy denies all that is not allowed",
        ),
        (
            ("PodDisruptionBudget", "worker"),
            lambda m: m["spec"]["selector"]["matchLabels"].update(a="b"),
            "PodDisruptionBudget worker: selects no pod",
        ),
        (JUDGE, lambda m: pod(m)["volumes"][0]["configMap"].update(name="service"), "there is no ConfigMap service"),
        (JUDGE, lambda m: first(m)["args"].append("--x=/config/other.yaml"), "has no key other.yaml"),
        (
            JUDGE,
            lambda m: first(m)["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
            "which is no volume of it",
        ),
        (JUDGE, lambda m: first(m)["volumeMounts"].pop(), "volume tmp is not mounted"),
        (
            ("PersistentVolumeClaim", "runs"),
            lambda m: m["metadata"].update(name="run"),
            "no PersistentVolumeClaim runs",
        ),
        (JUDGE, lambda m: m["spec"].update(replicas=2), "sets replicas, and so undoes what HorizontalPodAutoscaler"),
        (WORKER, lambda m: m["metadata"].update(name="workers"), "there is no Deployment worker"),
        (
            ("TriggerAuthentication", "redis"),
            lambda m: m["metadata"].update(name="r"),
            "no TriggerAuthentication redis",
        ),
        (JUDGE, lambda m: pod(m).update(priorityClassName="high"), "there is no PriorityClass high"),
    ],
)
def test_a_name_that_leads_nowhere_is_caught(
    gpu: list[Manifest], which: tuple[str, str], change: Change, problem: str
) -> None:
    manifests, _ = changed(gpu, which, change)
    assert any(problem in found for found in reference_problems(manifests)), list(reference_problems(manifests))


def test_a_workload_without_a_budget_is_caught(gpu: list[Manifest]) -> None:
    without = [one for one in gpu if one["kind"] != "PodDisruptionBudget"]
    assert "Deployment judge: has no PodDisruptionBudget" in set(reference_problems(without))


def test_a_secret_written_down_is_caught(gpu: list[Manifest]) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "x"}}
    assert list(problems([*gpu, secret])) == ["Secret s: is not to be written down"]


@pytest.mark.parametrize(
    ("operator", "values", "labels", "taken"),
    [
        ("In", ["a", "b"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", [], {"k": "x"}, True),
        ("DoesNotExist", [], {"k": "x"}, False),
    ],
)
def test_selectors_take_what_kubernetes_takes(
    operator: str, values: list[str], labels: dict[str, str], taken: bool
) -> None:
    assert matches({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}, labels) is taken


def test_both_ends_of_a_connection_have_to_allow_it(gpu: list[Manifest]) -> None:
    judge, teacher = Pod.named("judge"), Pod.named("teacher")
    assert may_connect(gpu, judge, teacher, "http")
    for name in ("services-to-teacher", "teacher-from-services"):
        without = [one for one in gpu if one["metadata"]["name"] != name]
        assert not may_connect(without, judge, teacher, "http")
    assert may_connect([], judge, teacher, "http")
