"""Bulk judging at the service: `POST /v1/batches`, kept in Redis, worked off by every replica together.

`store` keeps batches, `runner` works them off, `routes` lets callers at them.
"""
