"""Redis for what a service can do without for a while: an answer at once, or none.

In: a URL, any that the queue takes. Out: a connection that waits at most `PATIENCE_S` for each step and repeats
nothing: whoever asks has something else to do, and a request is waiting. Connects at its first use.
"""

from __future__ import annotations

from redis.asyncio import Redis

from preceptor_client.queue import redis_from_url

PATIENCE_S = 0.5


def brief_redis(url: str) -> Redis:
    """A connection, which answers in bytes. Raises QueueMisfit if the URL is none of a Redis."""
    return redis_from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)
