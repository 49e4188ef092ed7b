"""Judging cohorts: one judge, or a panel of several. See `judge`."""

from preceptor_services.judging.judge import Judge, UnjudgeableError
from preceptor_services.judging.panel import Panel

__all__ = ["Judge", "Panel", "UnjudgeableError"]
