"""A local stack of real processes: Redis, vLLM, the services and a worker, supervised without Docker."""

from preceptor_client.stack.local import Endpoints, FolderInUse, Ports, sole_use, start_local_stack
from preceptor_client.stack.parts import (
    MissingProgram,
    find_redis_server,
    find_vllm,
    has_gpu,
    judge_part,
    redis_part,
    rewrite_part,
    vllm_part,
    vllm_version,
    worker_part,
)
from preceptor_client.stack.probes import PortTaken, Probe, claim_port, completion_probe, http_probe, redis_probe
from preceptor_client.stack.process import Part, PartFailed, Process
from preceptor_client.stack.stack import Stack

__all__ = [
    "Endpoints",
    "FolderInUse",
    "MissingProgram",
    "Part",
    "PartFailed",
    "PortTaken",
    "Ports",
    "Probe",
    "Process",
    "Stack",
    "claim_port",
    "completion_probe",
    "find_redis_server",
    "find_vllm",
    "has_gpu",
    "http_probe",
    "judge_part",
    "redis_part",
    "redis_probe",
    "rewrite_part",
    "sole_use",
    "start_local_stack",
    "vllm_part",
    "vllm_version",
    "worker_part",
]
