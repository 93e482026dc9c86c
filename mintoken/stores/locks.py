"""Locks between processes: one writes the ledger at a time, and a worker shows that it lives."""

import asyncio
import fcntl
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread

from mintoken.errors import StorageError
from mintoken.files import make_private_folder, open_private


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class LedgerLock:
    """The lock under which a process commits; within a process one task at a time may ask for it.

    Waiting is the kernel's, in a thread: SQLite's own waiting starves processes. Nothing can
    interrupt that thread, so a wait that was given up goes on: the next one who asks joins it, and
    a lock that comes when nobody asks is given back.
    """

    def __init__(self, path: Path, *, patience_s: float = 5.0) -> None:
        self.path = path
        self._descriptor = open_private(path)
        self._patience_s = patience_s
        self._wait: asyncio.Future[None] | None = None
        self._wanted = False

    @property
    def closed(self) -> bool:
        return self._descriptor < 0

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    async def acquire(self) -> None:
        """Take the lock. Raises StorageError if another holder outlasts the patience."""
        if self._wait is None:
            if _try_lock(self._descriptor):
                return
            self._wait = _in_daemon(partial(fcntl.flock, self._descriptor, fcntl.LOCK_EX))
            self._wait.add_done_callback(self._give_back_unwanted)
        await self._wait_for(self._wait)

    async def _wait_for(self, wait: asyncio.Future[None]) -> None:
        self._wanted = True
        try:
            await asyncio.wait({wait}, timeout=self._patience_s)
        except asyncio.CancelledError:
            self._wanted = False
            if wait.done():
                self._give_back_unwanted(wait)
            raise
        self._wanted = False
        if not wait.done():
            raise StorageError(
                f"Another process has kept the ledger locked for {self._patience_s} s."
            )
        self._wait = None
        wait.result()

    def _give_back_unwanted(self, wait: asyncio.Future[None]) -> None:
        if self._wait is wait and not self._wanted:
            self._wait = None
            if wait.exception() is None:
                self.release()

    def release(self) -> None:
        if not self.closed:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


def _in_daemon(work: Callable[[], None]) -> asyncio.Future[None]:
    """Do the blocking work in a thread that does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def report(error: OSError | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error = None
        try:
            work()
        except OSError as failure:
            error = failure
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(report, error)

    Thread(target=run, name="ledger lock", daemon=True).start()
    return done


class WorkerLock:
    """A locked file named after a worker; the lock goes with the worker, however that ends.

    To be made under the ledger's lock, and after any fork: a child would keep it alive.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self.worker = uuid.uuid4().hex
        self.path = folder / f"{self.worker}.lock"
        self._descriptor = open_private(self.path, os.O_EXCL)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        with suppress(OSError):  # As on a disk gone read-only: whoever recovers removes it.
            self.path.unlink()
        os.close(self._descriptor)


def find_workers(folder: Path) -> tuple[list[str], list[Path]]:
    """The living workers, and the lock files of the dead; to be asked under the ledger's lock."""
    living: list[Path] = []
    dead: list[Path] = []
    for path in folder.glob("*.lock"):
        with suppress(FileNotFoundError):  # Another one recovers too, and has removed it.
            (living if _is_held(path) else dead).append(path)
    return [path.stem for path in living], dead


def _is_held(path: Path) -> bool:
    # A lock belongs to an open file, not to a process: this one's own counts as held too.
    descriptor = os.open(path, os.O_RDWR)
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)
