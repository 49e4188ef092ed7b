"""Riding through trouble: what an error means, when to try again, and when to give up."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from redis import exceptions
from redis.asyncio import Redis

from preceptor_client.queue import QueueMisfit, QueueUnavailable, Ride, Trouble, blocking_read, trouble_of
from preceptor_client.queue.riding import end


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.ConnectionError("Connection closed by server."), "away"),
        (exceptions.TimeoutError("Timeout reading from localhost:6379"), "away"),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "away"),
        (ConnectionRefusedError(111, "refused"), "away"),
        (exceptions.ResponseError("MASTERDOWN Link with MASTER is down"), "away"),
        (exceptions.ClusterDownError("CLUSTERDOWN the cluster is down"), "away"),
        (exceptions.TryAgainError("TRYAGAIN Multiple keys request"), "away"),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.", status_code="OOM"), "full"),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "full"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "full"),
        (
            exceptions.ResponseError("Error running script (call to f_0): @user_script:3: -OOM command not allowed"),
            "full",
        ),
        (exceptions.ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"), "read_only"),
        (exceptions.ResponseError("Error running script (call to f_0): -READONLY You can't write"), "read_only"),
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), "read_only"),
        (exceptions.ConnectionError("The previous master is now a slave"), "read_only"),
    ],
)
def test_what_passes_is_told_by_its_kind(error: Exception, kind: str) -> None:
    trouble = trouble_of(error)
    assert trouble is not None
    assert trouble.kind == kind
    assert str(error)[:20] in str(trouble)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            exceptions.AuthenticationError("invalid username-password pair", status_code="WRONGPASS"),
            "password is wrong",
        ),
        (exceptions.AuthenticationError("Authentication required.", status_code="NOAUTH"), "asks for a password"),
        (exceptions.AuthenticationError("AUTH <password> called without any password configured"), "is wrong"),
        (exceptions.NoPermissionError("this user has no permissions", status_code="NOPERM"), "may not do"),
        (exceptions.ResponseError("DENIED Redis is running in protected mode because" + " advice" * 200), "password"),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), "another namespace"),
        (exceptions.ResponseError("unknown command 'XAUTOCLAIM', with args"), "6.2"),
        (exceptions.ResponseError("DB index is out of range"), "database"),
        (exceptions.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), "no Redis"),
        (exceptions.MovedError("1 127.0.0.1:7000"), "cluster"),
    ],
)
def test_what_never_passes_says_what_to_change(error: Exception, told: str) -> None:
    if isinstance(error, exceptions.MovedError):
        error.status_code = "MOVED"
    with pytest.raises(QueueMisfit, match=told) as caught:
        trouble_of(error)
    assert len(str(caught.value)) < 300


def test_a_certificate_that_is_not_trusted_is_found_behind_the_error() -> None:
    error = exceptions.ConnectionError("Error 1 connecting to localhost:6379")
    error.__cause__ = ssl.SSLCertVerificationError(1, "self-signed certificate")
    with pytest.raises(QueueMisfit, match="ssl_ca_certs"):
        trouble_of(error)


def test_other_errors_mean_nothing() -> None:
    assert trouble_of(exceptions.ResponseError("ERR value is not an integer")) is None


class Failing:
    """A call that fails with each of `errors` in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_every_failed_try_is_told_and_then_that_it_is_over() -> None:
    told: list[Trouble | None] = []
    ride = Ride(Redis(), on_trouble=told.append)
    assert await ride.through(Failing()) == "done"
    assert told == []
    call = Failing(exceptions.ConnectionError("gone"), exceptions.OutOfMemoryError("OOM full"), OSError("reset"))
    assert await ride.through(call) == "done"
    assert [trouble.kind if trouble else None for trouble in told] == ["away", "full", "away", None]
    assert ride.breaks == 2, "a full Redis still holds what it held"


async def test_without_patience_the_first_failure_is_the_last() -> None:
    call = Failing(exceptions.ConnectionError("gone"))
    with pytest.raises(QueueUnavailable, match="Redis is away: gone") as caught:
        await Ride(Redis(), patience_s=0).through(call)
    assert (call.calls, caught.value.trouble) == (1, Trouble("away", "gone"))


async def test_patience_begins_anew_with_every_call() -> None:
    ride = Ride(Redis(), patience_s=0.2)
    for _ in range(3):
        assert await ride.through(Failing(exceptions.ConnectionError("gone"), OSError("gone"))) == "done"
    with pytest.raises(QueueUnavailable):
        await ride.through(Failing(*[OSError("gone")] * 100))


async def test_what_is_no_trouble_is_raised_at_once() -> None:
    for error in (exceptions.ResponseError("ERR syntax"), ValueError("ours")):
        call = Failing(error)
        with pytest.raises(type(error)):
            await Ride(Redis()).through(call)
        assert call.calls == 1
    with pytest.raises(QueueMisfit):
        await Ride(Redis()).through(Failing(exceptions.AuthenticationError("no")))


async def swallowing() -> None:
    """Loses a cancellation, as `asyncio.wait_for` of Python 3.11 can."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


async def failing_then() -> None:
    """The same, and then the connection breaks."""
    await swallowing()
    raise exceptions.ConnectionError("closed")


async def test_a_lost_cancellation_is_still_due() -> None:
    ride = Ride(Redis())
    for work in (ride.through(swallowing), ride.through(failing_then), blocking_read(swallowing())):
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_task_ends_though_it_loses_a_cancellation_and_whatever_it_comes_to() -> None:
    async def going_on() -> None:
        await swallowing()
        await asyncio.Event().wait()

    for work in (going_on(), failing_then()):
        task = asyncio.create_task(work)
        await asyncio.sleep(0)
        await end(task)
        assert task.done()


async def test_a_task_that_is_being_cancelled_may_still_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(await Ride(Redis()).through(Failing()))
            await blocking_read(asyncio.sleep(0))
            cleaned.append("read")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert cleaned == ["done", "read"]


@pytest.mark.parametrize("answer", [[["s", [("1-0", {"a": "b"})]]], {"s": [[("1-0", {"a": "b"})]]}])
async def test_a_blocking_read_has_one_shape_over_both_protocols(answer: object) -> None:
    async def read() -> object:
        return answer

    assert await blocking_read(read()) == [("1-0", {"a": "b"})]


async def test_a_blocking_read_whose_time_ran_out_found_nothing() -> None:
    assert await blocking_read(Failing(exceptions.TimeoutError("late"))()) == []
    assert await blocking_read(asyncio.sleep(0)) == []
