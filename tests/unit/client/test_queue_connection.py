"""URLs of the queue's Redis: what each form connects to, and what a wrong one says. Nothing is connected."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from preceptor_client.queue import QueueMisfit, connect, redis_from_url


def options_of(url: str) -> dict[str, Any]:
    return dict(connect(url).connection_pool.connection_kwargs)


def test_a_plain_url() -> None:
    options = options_of("redis://ann:s%40cret@redis.example:6380/3?socket_timeout=7")
    assert (options["host"], options["port"], options["db"]) == ("redis.example", 6380, 3)
    assert (options["username"], options["password"]) == ("ann", "s@cret")
    assert options["socket_timeout"] == 7, "what the URL says wins"
    assert options["retry"].get_retries() == 0, "the queue sees every failure"


def test_tls_and_unix_sockets() -> None:
    pool = connect("rediss://redis.example/0?ssl_ca_certs=ca.pem").connection_pool
    assert pool.connection_class is SSLConnection
    assert pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"
    pool = connect("unix:///run/redis.sock?db=2").connection_pool
    assert pool.connection_class is UnixDomainSocketConnection
    assert (pool.connection_kwargs["path"], pool.connection_kwargs["db"]) == ("/run/redis.sock", 2)


def test_other_connections_have_their_own_options() -> None:
    options = redis_from_url("redis://redis.example", socket_timeout=0.5).connection_pool.connection_kwargs
    assert options["socket_timeout"] == 0.5
    assert not options.get("decode_responses")


def test_sentinels_name_the_master() -> None:
    url = (
        "redis+sentinel://ann:secret@one.example,two.example:26380,[::1]:5/main/3"
        "?sentinel_username=watch&sentinel_password=w&socket_timeout=2"
    )
    pool = connect(url).connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.service_name == "main"
    options = pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("ann", "secret", 3)
    assert options["decode_responses"]
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [
        ("one.example", 26379),
        ("two.example", 26380),
        ("::1", 5),
    ]
    assert {(each["username"], each["password"], each["socket_timeout"]) for each in asked} == {("watch", "w", 2.0)}
    assert not issubclass(pool.connection_class, SSLConnection)


def test_sentinels_by_tls() -> None:
    pool = connect("rediss+sentinel://one.example/main?ssl_ca_certs=ca.pem").connection_pool
    assert issubclass(pool.connection_class, SSLConnection)
    assert pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"
    [sentinel] = pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
    assert sentinel.connection_pool.connection_class is SSLConnection
    assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://host", "write redis://, rediss://"),
        ("redis://host:port", "no URL of a Redis"),
        ("redis://host?socket_timeout=soon", "socket_timeout"),
        ("redis+sentinel://host", "<master>"),
        ("redis+sentinel://host:what/main", "'host:what' is no host"),
        ("redis+sentinel://one,,two/main", "'' is no host"),
        ("http+sentinel://one/main", "no URL of a Redis"),
        ("redis://ann:secret@host:port", "ann:\\*\\*\\*@host"),
    ],
)
def test_a_wrong_url_says_what_to_write_and_no_password(url: str, told: str) -> None:
    with pytest.raises(QueueMisfit, match=told) as caught:
        connect(url)
    assert "secret" not in str(caught.value)
