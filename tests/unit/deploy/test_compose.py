"""docker-compose.yml keeps to its rules: pinned, confined, bounded, watched, and without a secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor_client.config import load_config
from preceptor_trainer.config import ENV_PREFIX, TrainConfig
from preceptor_trainer.demo.plan import DemoFolder, DemoSize, sip
from preceptor_trainer.rollouts.config import RolloutsConfig

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
JOBS = {"prepare", "trainer"}
each_service = pytest.mark.parametrize("name", SERVICES)


class _Loader(yaml.SafeLoader):
    """Knows compose's own tags."""


_Loader.add_constructor("!reset", lambda loader, node: None)
GPU: dict[str, Any] = yaml.load((ROOT / "deploy/docker/gpu.yml").read_text(), _Loader)


@each_service
def test_a_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), "no root"
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()


@each_service
def test_a_container_is_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"].startswith("on-failure" if name in JOBS else "unless-stopped")


@each_service
def test_an_image_has_an_exact_version(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9/_-]+:v?\d+\.\d+\.\d+(-[a-z]+)?", SERVICES[name]["image"])


@each_service
def test_a_server_is_watched(name: str) -> None:
    service = SERVICES[name]
    if name in JOBS:
        return
    if build := service.get("build"):
        text = (ROOT / build["dockerfile"]).read_text()
        assert re.search(r"^HEALTHCHECK .*CMD", text, re.MULTILINE)
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@each_service
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port) for port in SERVICES[name].get("ports", []))


def test_only_what_is_for_people_is_published() -> None:
    published = {name for name, service in SERVICES.items() if service.get("ports")}
    assert published == {"judge", "rewrite", "prometheus", "grafana"}


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/docker/gpu.yml", "deploy/docker/nano.yaml"])
def test_no_file_has_a_secret(file: str) -> None:
    for line in (ROOT / file).read_text().splitlines():
        if found := re.match(r"\s*\w*(?:KEY|PASSWORD|TOKEN|SECRET)\w*: *(.*)", line):
            assert found[1].startswith(("${", "/run/secrets/")), line
        assert not re.search(r"pcp_[\w-]{20}|hf_\w{20}|://[^/\s]*:[^/\s]*@", line), line


def test_nobody_but_the_trainer_reaches_the_policys_development_endpoints() -> None:
    on_it = {name for name, service in SERVICES.items() if "policy" in service.get("networks", [])}
    assert on_it == {"policy", "trainer", "prometheus"}
    assert SERVICES["policy"]["networks"] == ["policy"]
    assert "VLLM_SERVER_DEV_MODE" not in SERVICES["teacher"]["environment"]


def test_networks_lead_nowhere_but_the_one_that_ports_are_published_on() -> None:
    assert {name for name, options in COMPOSE["networks"].items() if not options} == {"outside"}
    outside = {name for name, service in SERVICES.items() if "outside" in service.get("networks", [])}
    assert outside == {name for name, service in SERVICES.items() if service.get("ports")}


def test_the_page_of_either_service_shows_the_runs_and_leads_to_the_other() -> None:
    for name in ("judge", "rewrite"):
        told = SERVICES[name]["environment"]
        assert told["PRECEPTOR_SERVICE_QUEUE__URL"] == SERVICES["worker"]["environment"]["PRECEPTOR_SERVICE_QUEUE__URL"]
        assert "queue" in SERVICES[name]["networks"]
        for other in ("judge", "rewrite"):
            [port] = SERVICES[other]["ports"]
            assert told[f"PRECEPTOR_SERVICE_DASHBOARD__{other.upper()}_URL"] == f"http://{port.rpartition(':')[0]}"


def test_everything_waits_for_the_health_of_what_it_needs() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert needs["trainer"].keys() == {"prepare", "redis", "policy", "rewrite", "worker"}
    assert needs["judge"].keys() == needs["worker"].keys() == {"teacher", "redis"}
    for needed in needs.values():
        for name, how in needed.items():
            assert how["condition"] == ("service_completed_successfully" if name in JOBS else "service_healthy")


def test_redis_keeps_every_write_on_a_volume_and_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_the_run_is_the_demos_with_a_policy_server_and_checkpoints() -> None:
    run = load_config(TrainConfig, ROOT / "deploy/docker/nano.yaml", env_prefix=ENV_PREFIX)
    demo = sip(
        DemoFolder(Path("/var/lib/preceptor/models")),
        DemoSize(),
        seed=0,
        threads=1,
        redis_url=run.judge.redis_url,
        rewrite_url=run.rewrite.url,
    )
    assert run.rollouts.engine == "vllm"
    assert run.checkpoint.every
    assert run.metrics.port
    same = {"out": demo.out, "checkpoint": demo.checkpoint, "rollouts": RolloutsConfig(), "metrics": demo.metrics}
    assert run.model_copy(update=same) == demo


@pytest.mark.parametrize(("file", "changes"), [("nano.yaml", {}), ("gpu.yaml", GPU["services"])])
def test_the_run_and_its_servers_mean_the_same_folders_and_names(file: str, changes: dict[str, Any]) -> None:
    run = load_config(TrainConfig, ROOT / "deploy/docker" / file, env_prefix=ENV_PREFIX)
    policy = {**SERVICES["policy"], **changes.get("policy", {})}["command"]
    assert f"--served-model-name={run.rollouts.vllm.model}" in policy
    [context] = [int(word.partition("=")[2]) for word in policy if word.startswith("--max-model-len=")]
    assert run.data.prefix_tokens + run.data.suffix_tokens <= context
    volumes = [*SERVICES["trainer"]["volumes"], *changes.get("trainer", {}).get("volumes", [])]
    mounts = {volume.split(":")[-2 if volume.endswith(":ro") else -1] for volume in volumes}
    assert run.rollouts.vllm.sync_dir is not None
    for path in (run.out, run.rollouts.vllm.sync_dir, Path(run.model.path), Path(run.data.path)):
        assert any(path.is_relative_to(mount) for mount in mounts), path
    assert any("weights:" in volume for volume in SERVICES["policy"]["volumes"])


def test_a_machine_that_has_had_the_nano_run_may_go_on_to_gpus_and_back() -> None:
    """The volumes are the same ones."""
    nano, gpu = (
        load_config(TrainConfig, ROOT / "deploy/docker" / file, env_prefix=ENV_PREFIX)
        for file in ("nano.yaml", "gpu.yaml")
    )
    assert nano.out != gpu.out
    assert nano.rollouts.vllm.sync_dir != gpu.rollouts.vllm.sync_dir
    prepared, served = GPU["services"]["prepare"]["command"], GPU["services"]["policy"]["command"][0]
    assert prepared[-1] == served == gpu.model.path != SERVICES["policy"]["command"][0]


@pytest.mark.parametrize(
    "file",
    [
        "configs/paper.yaml",
        "configs/policies/llama-3.2-1b.yaml",
        "deploy/docker/gpu.yaml",
        "deploy/kubernetes/overlays/gpu/training/train.yaml",
    ],
)
def test_a_server_in_bfloat16_may_differ_from_the_trainer_by_its_rounding(file: str) -> None:
    run = load_config(TrainConfig, ROOT / file, env_prefix=ENV_PREFIX)
    largest = 20.0  # of the logits; bfloat16 keeps 8 bits of each of the two that make a log-probability
    assert run.rollouts.vllm.tolerance >= 2 * largest * 2**-8


def test_with_gpus_the_official_image_serves_and_each_model_has_its_own_gpus() -> None:
    servers = {name: GPU["services"][name] for name in ("teacher", "policy", "trainer")}
    pinned = (ROOT / "requirements/vllm-cuda.txt").read_text().rpartition("==")[2].strip()
    assert servers["teacher"]["image"] == servers["policy"]["image"] == f"vllm/vllm-openai:v{pinned}"
    gpus = [
        id
        for server in servers.values()
        for device in server["deploy"]["resources"]["reservations"]["devices"]
        for id in device["device_ids"]
    ]
    assert len(gpus) == len(set(gpus)) == 3


def test_a_real_teacher_samples_as_requests_say_and_not_by_defaults_of_its_own() -> None:
    assert "--generation-config=vllm" in GPU["services"]["teacher"]["command"]


@pytest.mark.parametrize("name", ["teacher", "policy"])
def test_the_official_image_can_write_and_load_what_it_compiles(name: str) -> None:
    server = GPU["services"][name]
    assert server["tmpfs"] == ["/cache:exec,mode=1777"]
    assert {server["environment"][key] for key in ("HOME", "TMPDIR")} == {"/cache"}
    assert server["environment"]["USER"], "torch asks for a name, which the user's number alone does not give"
