"""Connections to the queue's Redis, by URL, and whether what answers there can serve.

    redis://[user:password@]host[:port][/db]             rediss:// the same, by TLS
    unix://[user:password@]/path[?db=0]
    redis+sentinel://[user:password@]host[:26379][,host[:26379]...]/master[/db]    rediss+sentinel:// the same, by TLS

Options of redis-py follow as a query: `?ssl_ca_certs=ca.pem&socket_timeout=5`; for the Sentinels' own password,
`sentinel_username` and `sentinel_password`.
Raises `QueueMisfit`, whose text says what to change and shows no password, and `QueueUnavailable`.
"""

from __future__ import annotations

import re
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from preceptor_client.masking import shown
from preceptor_client.queue.riding import QueueMisfit, Ride
from preceptor_client.queue.steps import Keys

BLOCK_MS = 1_000
"""How long the queue's blocking reads wait."""
OLDEST_REDIS = (6, 2)
_SENTINEL_PORT = 26379
_SCHEMES = "redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
_SENTINEL_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://((?P<user>[^@/]*)@)?(?P<hosts>[^@/?]+)/(?P<master>[^/?]+)(/(?P<db>\d*))?/?"
    r"(\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:(?P<port>\d+))?")


def connect(url: str) -> Redis:
    """A connection as the queue needs it: to str, in which bytes that are no UTF-8 survive, and without any retry.

    Its time-out lies above every blocking read of the queue, yet notices a peer that went without a word.
    """
    return redis_from_url(
        url,
        decode_responses=True,
        encoding_errors="surrogateescape",
        socket_timeout=BLOCK_MS / 1000 + 4,
        socket_connect_timeout=5.0,
    )


def redis_from_url(url: str, **options: Any) -> Redis:
    """A connection that repeats nothing. What the URL says wins over `options`."""
    options = {"retry": Retry(NoBackoff(), 0), "socket_keepalive": True, **options}
    try:
        if "+sentinel://" in url:
            return _behind_sentinels(url, options)
        if url.startswith("unix://"):
            options.pop("socket_keepalive")
        return Redis.from_url(url, **options)
    except (ValueError, TypeError) as error:
        raise QueueMisfit(f"{shown(url)} is no URL of a Redis ({error}): write {_SCHEMES}") from None


def _behind_sentinels(url: str, options: dict[str, Any]) -> Redis:
    """The present master, which is asked for anew at every connection."""
    parts = _SENTINEL_URL.fullmatch(url)
    if parts is None:
        raise ValueError("behind Sentinels it is redis+sentinel://host1:26379,host2:26379/<master>/<db>")
    # Everything but the hosts is read as redis-py reads any URL.
    user = f"{parts['user']}@" if parts["user"] else ""
    found = dict(parse_url(f"{parts['scheme']}://{user}host/{parts['db'] or 0}?{parts['query'] or ''}"))
    del found["host"]
    tls = found.pop("connection_class", None) is SSLConnection
    own = {name: found.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in found}
    everywhere = {"ssl": True} if tls else {}
    options = {**options, **found, **everywhere}
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout") if name in options}
    certificates = {name: value for name, value in found.items() if name.startswith("ssl_")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [_address(host) for host in parts["hosts"].split(",")],
        sentinel_kwargs={"retry": options["retry"], **timeouts, **certificates, **everywhere, **own},
        **options,
    )
    master: Redis = sentinels.master_for(parts["master"])
    return master


def _address(text: str) -> tuple[str, int]:
    parts = _HOST.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is no host[:port]")
    return parts["host"].strip("[]"), int(parts["port"] or _SENTINEL_PORT)


async def check_redis(redis: Redis, *, namespace: str = "preceptor") -> list[str]:
    """What is amiss without being in the way, one sentence each. Asks once: raises if Redis is away or cannot serve."""
    ride, keys = Ride(redis, patience_s=0), Keys(namespace)
    info: dict[str, Any] = await ride.through(redis.info)
    version = str(info.get("redis_version", "0"))
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_REDIS:
        raise QueueMisfit(f"this is Redis {version}, and the queue needs 6.2 or newer")
    if info.get("cluster_enabled"):
        raise QueueMisfit("this is a Redis Cluster: use one master, with replicas and Sentinels if it must not fail")
    for key, kind in {keys.cohorts: "stream", keys.dead: "stream", keys.runs: "set"}.items():
        found = str(await ride.through(lambda key=key: redis.type(key)))  # type: ignore[misc]
        if found not in (kind, "none"):
            raise QueueMisfit(f"{key} is a {found} in this Redis: choose another namespace or database")
    warnings = []
    if not info.get("aof_enabled"):
        warnings.append("Redis keeps no append-only file, so what it holds is lost with it: set `appendonly yes`")
    if info.get("maxmemory") and (policy := info.get("maxmemory_policy")) != "noeviction":
        warnings.append(f"Redis may throw the queue away to make room ({policy}): set `maxmemory-policy noeviction`")
    if info.get("role") == "slave":
        warnings.append("this Redis is a replica, and read-only: the queue waits until it is the master")
    return warnings
