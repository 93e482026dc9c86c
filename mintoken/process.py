"""What a serving process asks of the kernel: many files, and that nobody looks into its memory."""

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4
"""prctl(2)."""


def raise_file_limit() -> None:
    """Every stream takes two sockets, and the usual soft limit is 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def hide_memory() -> None:
    """Callers' provider keys are in it: no core dumps, no debugger and no /proc/PID/mem for others.

    Other programs of the same user are kept out too, and forked children stay hidden. Raises
    OSError.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
