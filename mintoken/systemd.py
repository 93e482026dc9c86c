"""What systemd hands to a service, and what it wants to hear from it."""

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3
"""sd_listen_fds(3): the inherited sockets begin here."""


def inherited_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets of socket activation, in the order of the unit; usually none.

    Raises OSError if one of them is no socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + count)]


def notify(environ: Mapping[str, str], state: str) -> None:
    """Send a state if systemd waits for it (sd_notify(3)); a leading @ is an abstract socket."""
    if path := environ.get("NOTIFY_SOCKET", ""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(state.encode())
