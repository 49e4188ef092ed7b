"""The overlays hold, and what they tell each other and the programs agrees."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from preceptor_client.config import load_config
from preceptor_client.queue import GROUP
from preceptor_client.queue.steps import Keys
from preceptor_services.serving import _GRACE_S
from preceptor_services.settings import ENV_PREFIX as SERVICE_PREFIX
from preceptor_services.settings import ServiceSettings
from preceptor_trainer.cli import app
from preceptor_trainer.config import ENV_PREFIX as TRAIN_PREFIX
from preceptor_trainer.config import TrainConfig
from scripts.manifests.__main__ import problems
from scripts.manifests.network import Pod, may_connect
from scripts.manifests.pods import containers, pod_templates, quantity
from scripts.manifests.references import secrets
from scripts.manifests.render import KUBERNETES, ROOT, Manifest

SECRET_KEYS = {
    ("preceptor-api-keys", "*"),
    ("preceptor-redis", "address"),
    ("preceptor-redis", "password"),
    ("preceptor-redis", "url"),
    ("preceptor-trainer", "api-key"),
}


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def container(manifest: Manifest) -> dict[str, Any]:
    [template] = pod_templates(manifest)
    first: dict[str, Any] = template["spec"]["containers"][0]
    return first


def option(manifest: Manifest, name: str) -> str:
    """The value of `--name=value` in what a pod runs."""
    words = [*container(manifest).get("command", []), *container(manifest).get("args", [])]
    [value] = [str(word).partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return value


def file(manifests: list[Manifest], key: str, folder: Path) -> Path:
    """A file of a ConfigMap, as it is mounted."""
    [text] = [each["data"][key] for each in manifests if each["kind"] == "ConfigMap" and key in each["data"]]
    path = folder / key
    path.write_text(text)
    return path


@pytest.fixture
def services(overlay: list[Manifest], tmp_path: Path) -> ServiceSettings:
    return load_config(ServiceSettings, file(overlay, "services.yaml", tmp_path), env_prefix=SERVICE_PREFIX)


@pytest.fixture
def train(overlay: list[Manifest], tmp_path: Path) -> TrainConfig:
    return load_config(TrainConfig, file(overlay, "train.yaml", tmp_path), env_prefix=TRAIN_PREFIX)


def test_every_schema_and_every_rule_holds(manifests: list[Manifest]) -> None:
    assert list(problems(manifests)) == []


def test_all_parts_are_there(overlay: list[Manifest]) -> None:
    kinds = {(each["kind"], each["metadata"]["name"]) for each in overlay}
    assert kinds >= {
        ("Deployment", "judge"),
        ("Deployment", "rewrite"),
        ("Deployment", "worker"),
        ("Deployment", "policy"),
        ("StatefulSet", "teacher"),
        ("StatefulSet", "redis"),
        ("Job", "trainer"),
        ("ScaledObject", "worker"),
        ("HorizontalPodAutoscaler", "judge"),
        ("HorizontalPodAutoscaler", "rewrite"),
        ("ServiceMonitor", "preceptor"),
        ("NetworkPolicy", "default-deny"),
    }
    labels = one(overlay, "Namespace", "preceptor")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secrets_are_referred_to_and_all_of_them_are_in_the_operations_page(overlay: list[Manifest]) -> None:
    assert secrets(overlay) - {("preceptor-hugging-face", "token")} == SECRET_KEYS
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name, key in secrets(overlay) if name not in page or key.strip("*") not in page] == []


def test_versions_are_those_of_the_project(overlay: list[Manifest]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {each["image"] for m in overlay for t in pod_templates(m) for each in containers(t["spec"])}
    ours = {image for image in images if image.startswith("preceptor/")}
    assert {image.partition(":")[2] for image in ours} == {version}
    [vllm] = [image for image in images if "vllm" in image]
    pinned = re.search(r"^vllm==(.+)$", (ROOT / "requirements" / "vllm-cuda.txt").read_text(), re.M)
    assert pinned
    assert vllm in (f"preceptor/vllm-cpu:{version}", f"vllm/vllm-openai:v{pinned[1]}")


def test_what_the_small_overlay_asks_of_a_machine_is_in_the_operations_page(cpu: list[Manifest]) -> None:
    cpus = memory = 0.0
    for manifest in cpu:
        for template in pod_templates(manifest):
            if template["metadata"]["labels"]["app.kubernetes.io/name"] == "models":  # gone before the trainer comes
                continue
            number = manifest["spec"].get("parallelism") or manifest["spec"].get("replicas") or 1
            for each in template["spec"]["containers"]:
                cpus += number * quantity(each["resources"]["requests"]["cpu"])
                memory += number * quantity(each["resources"]["requests"]["memory"])
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"{cpus:g} CPUs and {memory / 2**30:g} GiB in all" in page


def test_every_image_is_named_in_one_place(manifests: list[Manifest]) -> None:
    named = yaml.safe_load((KUBERNETES / "components" / "images" / "kustomization.yaml").read_text())["images"]
    run = {each["image"] for m in manifests for t in pod_templates(m) for each in containers(t["spec"])}
    assert run <= {f"{image.get('newName', image['name'])}:{image['newTag']}" for image in named}


def test_the_services_know_every_teacher_by_its_own_address(overlay: list[Manifest], services: ServiceSettings) -> None:
    teacher = one(overlay, "StatefulSet", "teacher")
    assert services.engine.urls == tuple(
        f"http://teacher-{number}.teacher:8000" for number in range(teacher["spec"]["replicas"])
    )
    assert services.engine.model == option(teacher, "served-model-name") == "teacher"


def test_a_real_teacher_samples_as_requests_say_and_not_by_defaults_of_its_own(gpu: list[Manifest]) -> None:
    assert option(one(gpu, "StatefulSet", "teacher"), "generation-config") == "vllm"


def test_the_services_listen_where_their_ports_say(overlay: list[Manifest], services: ServiceSettings) -> None:
    for name in ("judge", "rewrite"):
        deployment = one(overlay, "Deployment", name)
        assert container(deployment)["ports"][0]["containerPort"] == int(option(deployment, "port"))
    assert (services.queue.metrics_host, services.queue.metrics_port) == ("0.0.0.0", 9101)
    assert container(one(overlay, "Deployment", "worker"))["ports"][0]["containerPort"] == 9101
    mounts = {mount["mountPath"] for mount in container(one(overlay, "Deployment", "judge"))["volumeMounts"]}
    assert services.auth.keys_file
    assert str(services.auth.keys_file.parent) in mounts


def test_everybody_gets_the_time_to_stop_that_it_takes(overlay: list[Manifest], services: ServiceSettings) -> None:
    def grace(kind: str, name: str) -> int:
        [template] = pod_templates(one(overlay, kind, name))
        return int(template["spec"]["terminationGracePeriodSeconds"])

    assert grace("Deployment", "worker") >= services.queue.grace_s + 10
    for name in ("judge", "rewrite"):
        before = container(one(overlay, "Deployment", name))["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert grace("Deployment", name) >= before + _GRACE_S + 5
    assert grace("Job", "trainer") >= int(option(one(overlay, "Job", "trainer"), "shutdown-timeout")) + 10


def test_workers_are_scaled_by_the_queue_that_they_read(overlay: list[Manifest], services: ServiceSettings) -> None:
    spec = one(overlay, "ScaledObject", "worker")["spec"]
    lag, length = (trigger["metadata"] for trigger in spec["triggers"])
    assert spec["minReplicaCount"] == 0
    assert lag["stream"] == length["stream"] == Keys(services.queue.namespace).cohorts
    assert lag["consumerGroup"] == GROUP
    assert int(lag["activationLagCount"]) > 0  # without it KEDA 2.11 to 2.16 refuses both triggers
    assert "consumerGroup" not in length  # with one KEDA would count what is pending instead
    assert "activationLagCount" not in length  # one cohort alone wakes a worker
    assert int(length["streamLength"]) == services.queue.concurrency


def test_the_trainer_is_as_many_ranks_as_it_has_machines_and_gpus(overlay: list[Manifest]) -> None:
    job = one(overlay, "Job", "trainer")
    spec = job["spec"]
    nodes = int(option(job, "nnodes"))
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == nodes > 1
    assert one(overlay, "PodDisruptionBudget", "trainer")["spec"]["minAvailable"] == nodes
    gpus = container(job)["resources"]["limits"].get("nvidia.com/gpu")
    assert int(option(job, "nproc-per-node")) == int(gpus or 1)
    assert option(job, "master-addr") == f"trainer-0.{spec['template']['spec']['subdomain']}"
    assert str(container(job)["ports"][0]["containerPort"]) == option(job, "master-port")


def test_the_ranks_of_a_jobset_are_those_of_the_job(gpu: list[Manifest], jobset: list[Manifest]) -> None:
    def ranks(manifest: Manifest) -> dict[str, Any]:
        [template] = copy.deepcopy(pod_templates(manifest))
        spec: dict[str, Any] = template["spec"]
        spec.pop("subdomain", None)  # of a JobSet's pods it is its network's
        [trainer] = spec["containers"]
        trainer["command"] = [word for word in trainer["command"] if not word.startswith("--master-addr=")]
        for named in (spec["volumes"], trainer["volumeMounts"]):
            named.sort(key=lambda each: each["name"])
        return spec

    assert ranks(one(jobset, "JobSet", "trainer")) == ranks(one(gpu, "Job", "trainer"))


def test_the_trainer_waits_for_its_servers_before_a_rank_starts(manifests: list[Manifest]) -> None:
    [trainer] = [one for one in manifests if one["kind"] in ("Job", "JobSet") and one["metadata"]["name"] == "trainer"]
    [template] = pod_templates(trainer)
    waits = template["spec"]["initContainers"][-1]
    script = waits["command"][-1]
    assert waits["image"].startswith("preceptor/services:")
    assert "health.py /opt/health.py" in (ROOT / "deploy/docker/services.Dockerfile").read_text()
    assert script.count("/opt/health.py") == 1
    asked = {str(url.hostname): url for url in map(urlsplit, re.findall(r"_URL=(\S+?);? ", script))}
    assert asked.keys() == {"rewrite", "policy"}
    for name, url in asked.items():
        assert url.port == one(manifests, "Service", name)["spec"]["ports"][0]["port"]
    assert (
        asked["rewrite"].path == container(one(manifests, "Deployment", "rewrite"))["readinessProbe"]["httpGet"]["path"]
    )
    assert f"_MODEL={option(one(manifests, 'Deployment', 'policy'), 'served-model-name')};" in script


@pytest.mark.parametrize("which", [("Job", "models"), ("StatefulSet", "teacher"), ("Deployment", "policy")])
def test_a_model_on_cpus_has_no_more_threads_than_it_may_use(cpu: list[Manifest], which: tuple[str, str]) -> None:
    server = container(one(cpu, *which))
    told = {variable["name"]: variable["value"] for variable in server["env"]}
    if which != ("Job", "models"):
        assert told["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"  # else vLLM counts the machine's cores, whatever its limit
    assert int(told["OMP_NUM_THREADS"]) <= int(server["resources"]["limits"]["cpu"])


def test_the_run_reaches_what_it_needs(overlay: list[Manifest], train: TrainConfig) -> None:
    policy = one(overlay, "Deployment", "policy")
    assert train.rollouts.vllm.url == "http://policy:8000"
    assert train.rollouts.vllm.model == option(policy, "served-model-name")
    assert train.rewrite.url == "http://rewrite:8102"
    assert train.data.prefix_tokens + train.data.suffix_tokens <= int(option(policy, "max-model-len"))
    mounts = {mount["mountPath"] for mount in container(one(overlay, "Job", "trainer"))["volumeMounts"]}
    for path in (train.model.path, train.data.path, str(train.out)):
        assert any(f"{path}/".startswith(f"{mount}/") for mount in mounts), path
    seen = {mount["mountPath"]: mount for mount in container(policy)["volumeMounts"]}
    assert train.rollouts.vllm.sync_dir is None  # so weights go by <out>/weights
    assert seen[f"/{train.out.parts[1]}"].get("readOnly") is True


def test_what_the_pods_of_the_trainer_are_to_do_is_a_command_of_it(overlay: list[Manifest]) -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    runs = [
        " ".join([*each.get("command", []), *each.get("args", [])])
        for manifest in overlay
        for template in pod_templates(manifest)
        for each in containers(template["spec"])
    ]
    told = {name for run in runs for name in re.findall(r"preceptor_trainer (\S+)", run)}
    assert told > {"train"}
    assert told <= commands


def test_the_trainers_metrics_are_where_its_port_says(overlay: list[Manifest], train: TrainConfig) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(one(overlay, "Job", "trainer"))["ports"]}
    assert (train.metrics.host, train.metrics.port) == ("0.0.0.0", ports["metrics"])


def test_a_guard_never_stops_a_run_that_would_be_started_again(train: TrainConfig) -> None:
    assert [name for name, guard in train.guards.on.items() if guard.action == "stop"] == []


NAMES = ("judge", "rewrite", "worker", "teacher", "policy", "trainer", "redis", "models")


def reached(manifests: list[Manifest], target: str, port: str) -> set[str]:
    """Who may connect, of all pods in the namespace."""
    return {name for name in NAMES if may_connect(manifests, Pod.named(name), Pod.named(target), port)}


def test_the_policys_server_is_reached_by_the_trainer_alone(manifests: list[Manifest]) -> None:
    assert reached(manifests, "policy", "http") == {"trainer"}
    for stranger in (Pod.named("prometheus", "monitoring"), Pod.named("anything", "default")):
        assert not may_connect(manifests, stranger, Pod.named("policy"), "http")


def test_redis_is_reached_by_its_users_alone(manifests: list[Manifest]) -> None:
    assert reached(manifests, "redis", "redis") == {"judge", "rewrite", "worker", "trainer"}
    keda = {"app": "keda-operator"}
    assert may_connect(manifests, Pod(keda, "keda"), Pod.named("redis"), "redis")
    assert not may_connect(manifests, Pod(keda, "default"), Pod.named("redis"), "redis")


def test_the_teacher_is_reached_by_the_services_alone(manifests: list[Manifest]) -> None:
    assert reached(manifests, "teacher", "http") == {"judge", "rewrite", "worker"}


def test_the_trainer_reaches_the_rewriter_and_nobody_the_workers(manifests: list[Manifest]) -> None:
    assert reached(manifests, "rewrite", "http") == {"trainer"}
    assert reached(manifests, "trainer", "rendezvous") == {"trainer"}
    assert reached(manifests, "worker", "metrics") == set()
    assert may_connect(manifests, Pod.named("prometheus", "monitoring"), Pod.named("worker"), "metrics")


def test_names_can_be_resolved_by_all(manifests: list[Manifest]) -> None:
    dns = one(manifests, "NetworkPolicy", "dns")["spec"]
    assert dns["podSelector"] == {}
    assert {port["protocol"] for port in dns["egress"][0]["ports"]} == {"UDP", "TCP"}
