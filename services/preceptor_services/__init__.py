"""Preceptor's services: the judge and rewrite APIs and the judge worker, backed by any OpenAI-protocol engine."""
