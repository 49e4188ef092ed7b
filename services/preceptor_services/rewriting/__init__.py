"""Rewriting suffixes with a teacher: see `rewriter`."""

from preceptor_services.rewriting.rewriter import Rewriter

__all__ = ["Rewriter"]
