"""The stack with real child processes: what starts is ready, what fails is named, what ends leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from preceptor_client.stack import Part, PartFailed, PortTaken, Process, Stack, claim_port, http_probe, redis_part


def python_part(tmp_path: Path, name: str, code: str, **settings: object) -> Part:
    return Part(name, (sys.executable, "-c", textwrap.dedent(code)), tmp_path / f"{name}.log", **settings)  # type: ignore[arg-type]


def sleeper(tmp_path: Path, name: str = "sleeper") -> Part:
    return python_part(tmp_path, name, "import signal; signal.pause()")


def is_gone(pid: int) -> bool:
    """Whether the process has ended (a zombie, which only waits for its parent, has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_gone(pid: int, timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_redis_starts_answers_and_leaves_neither_process_nor_port(tmp_path: Path) -> None:
    with Stack() as stack:
        process = stack.start(redis_part(tmp_path))
        assert process.part.url is not None
        port = int(process.part.url.split(":")[-1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"CONFIG GET appendonly\r\n")
            assert b"yes" in connection.recv(200)
    assert is_gone(process.pid)
    assert claim_port(port) == port


def test_data_in_redis_survives_a_kill(tmp_path: Path) -> None:
    def ask(port: int, line: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(line + b"\r\n")
            return connection.recv(200)

    port = claim_port()
    process = Process(redis_part(tmp_path, port=port))
    process.wait_ready()
    ask(port, b"CONFIG SET appendfsync always")
    ask(port, b"SET kept here")
    os.kill(process.pid, signal.SIGKILL)
    process.stop()
    with Stack() as stack:
        stack.start(redis_part(tmp_path, port=port))
        assert b"here" in ask(port, b"GET kept")


def test_a_part_that_dies_while_starting_fails_at_once_with_its_log(tmp_path: Path) -> None:
    part = python_part(
        tmp_path,
        "broken",
        "raise SystemExit('no such model')",
        probe=http_probe("http://127.0.0.1:9/readyz"),
        ready_timeout_s=60,
    )
    began = time.monotonic()
    with Stack() as stack, pytest.raises(PartFailed, match=r"broken ended with 1.*broken\.log(.|\n)*no such model"):
        stack.start(part)
    assert time.monotonic() - began < 10


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    part = Part("ghost", ("/no/such/program",), tmp_path / "ghost.log", probe=lambda: "never")
    with Stack() as stack, pytest.raises(PartFailed, match="cannot start /no/such/program: No such file"):
        stack.start(part)


def test_a_part_that_is_never_ready_fails_when_time_is_up_and_says_why(tmp_path: Path) -> None:
    part = python_part(tmp_path, "slow", "import signal; signal.pause()", probe=lambda: "loading", ready_timeout_s=0.3)
    with Stack() as stack, pytest.raises(PartFailed, match=r"slow was not ready after 0 s \(loading\)"):
        stack.start(part)
    assert is_gone(stack_pid(part, tmp_path))


def stack_pid(part: Part, tmp_path: Path) -> int:
    """The pid of the last process that ran `part`, from the kernel: none runs any more if the stack did its work."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(tmp_path).encode() in b" ".join(command):
                return int(entry.name)
    return 2**22


def test_waiting_for_one_part_ends_when_another_dies(tmp_path: Path) -> None:
    began = time.monotonic()
    with Stack() as stack:
        stack.launch(python_part(tmp_path, "dying", "raise SystemExit(4)"))
        slow = python_part(tmp_path, "slow", "import signal; signal.pause()", probe=lambda: "loading")
        with pytest.raises(PartFailed, match="dying ended with 4"):
            stack.start(slow)
    assert time.monotonic() - began < 30


def test_waiting_ends_with_the_first_part_that_dies_and_all_others_are_stopped(tmp_path: Path) -> None:
    with Stack() as stack:
        first = stack.start(sleeper(tmp_path, "first"))
        second = stack.start(sleeper(tmp_path, "second"))
        threading.Timer(0.2, os.kill, (second.pid, signal.SIGKILL)).start()
        with pytest.raises(PartFailed, match="second was killed by SIGKILL"):
            stack.wait(timeout_s=30)
    assert is_gone(first.pid)


def test_a_part_that_ends_well_is_still_a_failure_of_the_stack(tmp_path: Path) -> None:
    with Stack() as stack:
        stack.launch(python_part(tmp_path, "quitter", "pass"))
        with pytest.raises(PartFailed, match="quitter ended with 0"):
            stack.wait(timeout_s=30)


def test_a_finite_part_runs_to_its_end_and_a_failing_neighbour_interrupts_it(tmp_path: Path) -> None:
    with Stack() as stack:
        neighbour = stack.start(sleeper(tmp_path, "neighbour"))
        stack.run(python_part(tmp_path, "job", "print('done')"))
        stack.check()
        assert (tmp_path / "job.log").read_text() == "done\n"
        with pytest.raises(PartFailed, match="failing ended with 3"):
            stack.run(python_part(tmp_path, "failing", "raise SystemExit(3)"))
        assert not is_gone(neighbour.pid)
    with Stack() as stack:
        neighbour = stack.start(sleeper(tmp_path, "neighbour"))
        threading.Timer(0.2, os.kill, (neighbour.pid, signal.SIGTERM)).start()
        with pytest.raises(PartFailed, match="neighbour was killed by SIGTERM"):
            stack.run(sleeper(tmp_path, "job"))


def test_a_part_that_ignores_sigterm_is_killed_with_its_children_after_the_grace_period(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    part = python_part(
        tmp_path,
        "stubborn",
        f"""
        import pathlib, signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "import pathlib; pathlib.Path({str(ready)!r}).write_text('x'); signal.pause()"])
        print(child.pid, flush=True)
        signal.pause()
        """,
        probe=lambda: None if ready.exists() else "starting",
        grace_s=0.5,
    )
    with Stack() as stack:
        process = stack.start(part)
        child = int((tmp_path / "stubborn.log").read_text())
        assert not is_gone(child)
    assert process.returncode == -signal.SIGKILL
    assert wait_gone(child)


def test_parts_stop_in_reverse_order_of_their_start(tmp_path: Path) -> None:
    code = """
        import pathlib, signal, time
        def leave(*_):
            with open({order!r}, "a") as file: file.write({name!r})
            raise SystemExit(0)
        signal.signal(signal.SIGTERM, leave)
        pathlib.Path({ready!r}).touch()
        signal.pause()
    """
    order = tmp_path / "order"
    with Stack() as stack:
        for name in "abc":
            ready = tmp_path / f"ready-{name}"
            text = code.format(order=str(order), name=name, ready=str(ready))
            stack.start(python_part(tmp_path, name, text, probe=lambda r=ready: None if r.exists() else "starting"))
    assert order.read_text() == "cba"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signalled_owner_leaves_no_part_behind(tmp_path: Path, number: signal.Signals) -> None:
    program = textwrap.dedent(
        f"""
        import pathlib
        from preceptor_client.stack import Part, Stack, redis_part
        with Stack() as stack:
            print(stack.start(redis_part(pathlib.Path({str(tmp_path)!r}))).pid, flush=True)
            stack.wait()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not is_gone(pid)
        owner.send_signal(number)
        owner.wait(timeout=30)
    assert wait_gone(pid)


def test_a_taken_port_gives_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortTaken, match=r"port \d+ .* cannot be used .*choose another"):
            claim_port(taken.getsockname()[1])
