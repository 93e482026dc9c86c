"""What systemd hands to a service, and what it wants to hear from it."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from mintoken.errors import ConfigError

FIRST_FD = 3
"""sd_listen_fds(3): the inherited sockets begin here."""
PUBLIC, ADMIN = "public", "admin"
WANTED = (
    "The socket unit has to give two sockets: ListenStream= of the public address first, then of "
    "the admin address (a drop-in clears the earlier ones with an empty ListenStream= before). "
    "Or two units do, with FileDescriptorName=public and FileDescriptorName=admin."
)


def inherited_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets of socket activation, the public one first; usually none.

    Within a unit their order is that of its lines; between units there is none, so that names
    have to tell (systemd.socket(5)). Raises ConfigError if it is not clear which is which.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    given = range(FIRST_FD, FIRST_FD + int(environ.get("LISTEN_FDS", "0")))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if len(given) != 2:
        raise ConfigError([f"{WANTED} There are {len(given)}."])
    if set(names) == {PUBLIC, ADMIN}:
        given = given[:: 1 if names[0] == PUBLIC else -1]
    elif len(set(names)) > 1:
        raise ConfigError([f"{WANTED} They are named {' and '.join(names)}."])
    return [_listening(fd) for fd in given]


def _listening(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError([f"{WANTED} Descriptor {fd} is none: {error.strerror}."]) from error
    if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ConfigError([f"{WANTED} Descriptor {fd} does not listen on a TCP address."])
    return sock


def notify(environ: Mapping[str, str], state: str) -> None:
    """Send a state if systemd waits for it (sd_notify(3)); a leading @ is an abstract socket.

    Never waits or raises: what is not heard is for systemd's own watchdog to judge.
    """
    if path := environ.get("NOTIFY_SOCKET", ""):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(state.encode())
