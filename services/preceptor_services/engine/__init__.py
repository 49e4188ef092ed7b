"""The teacher's servers as one engine: see `pool`."""

from preceptor_services.engine.errors import EngineError
from preceptor_services.engine.pool import Engine
from preceptor_services.engine.protocol import Answer, Generation, Prompt
from preceptor_services.engine.replica import Served, Teacher

__all__ = ["Answer", "Engine", "EngineError", "Generation", "Prompt", "Served", "Teacher"]
