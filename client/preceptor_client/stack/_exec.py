"""Runs a command such that it gets SIGTERM when the process that started it dies, however that dies (Linux).

Called as `python -I -S _exec.py PARENT_PID COMMAND ARGS...`; it becomes the command, under the same pid. A launcher and
not a `preexec_fn`, because Python code between fork and exec can dead-lock in a program that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arrange the death signal, then become the command. Exits 127 when the command cannot be started."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)  # the parent died before the signal was arranged
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


main()
