"""Passwords: argon2id, one at a time and off the event loop, the same work for whoever is asked."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_T = TypeVar("_T")

SHORTEST, LONGEST = 12, 1024
"""Characters of a password; NIST SP 800-63B §5.1.1 wants length, and no mixture of kinds."""

# The smallest of the settings that OWASP's Password Storage Cheat Sheet holds for safe: the memory
# is taken while one signs in, and the lanes from what serves requests.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
NOBODYS = (
    "$argon2id$v=19$m=19456,t=2,p=1$"
    "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""What the password of who is not there is compared with, so that it takes as long."""


def wrong_with(password: str) -> str | None:
    """Why it cannot be a password; None if it can."""
    if SHORTEST <= len(password) <= LONGEST:
        return None
    return f"A password has {SHORTEST} to {LONGEST} characters."


def hash_password(password: str) -> str:
    """Its argon2id hash with a salt of its own. Blocks."""
    return _HASHER.hash(_bytes(password))


def is_password(password: str, hash_: str) -> bool:
    """Is it the password of this hash? Blocks, for as long whatever the answer is."""
    try:
        return _HASHER.verify(hash_, _bytes(password[:LONGEST]))
    except (VerificationError, InvalidHashError):
        return False


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")


class PasswordThread:
    """Does this work in one thread, so that many who sign in at once hold up nobody else."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")

    async def hash(self, password: str) -> str:
        """As `hash_password`."""
        return await self._run(partial(hash_password, password))

    async def check(self, password: str, hash_: str | None) -> bool:
        """As `is_password`; without a hash it takes as long, and says no."""
        return await self._run(partial(is_password, password, hash_ or NOBODYS))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Wait for what runs (blocks)."""
        self._thread.shutdown(cancel_futures=True)
