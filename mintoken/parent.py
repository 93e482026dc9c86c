"""The parent process: it owns the listening sockets, keeps workers alive, reloads and stops them.

Why not gunicorn, which aiohttp documents: measured with its version 27.0.1, a reload whose new
workers cannot start takes the old ones and the whole service down. Here they stay.
"""

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from mintoken.config import Config
from mintoken.detect import load_detector
from mintoken.errors import ConfigError, TokenizerError
from mintoken.rates import LANES, RateLimiter, RateTable
from mintoken.server import address_of
from mintoken.vocabulary import preload
from mintoken.worker import BEAT_S, RETIRE, STOP, work

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
STARTING_S = 0.02
"""Seconds between looks at workers that are not serving yet."""
SILENT_S = 30.0
"""Seconds without a beat after which a worker is taken for hung and killed."""
AGAIN_S = 1.0
"""Seconds until a worker that died before it served is tried again."""

LOG = structlog.get_logger()


@dataclass(slots=True)
class Worker:
    """A child process, and what is known of it."""

    pid: int
    pipe: int
    lane: int
    """Of the rate table."""
    sock: socket.socket
    """What it listens on."""
    heard_at: float
    """Monotonic seconds."""
    serves: bool = False


class _Born(BaseException):
    """Raised in a new worker, out of all that its parent was just doing."""

    def __init__(self, config: Config, lane: int, sock: socket.socket, pipe: int) -> None:
        self.config, self.lane, self.sock, self.pipe = config, lane, sock, pipe
        super().__init__()


class Parent:
    """Keeps processes serving on the given sockets, the public one first, until told to stop.

    `server.workers` serve the public one. If the admin listener has another, it has a worker of its
    own, so that no request waits for pages to be made: in one process with them, two people who
    looked at the dashboard took the p99 of small requests from 17 to 97 ms.
    `load` reads the configuration again; `tell` tells systemd of a state.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        *,
        load: Callable[[], Config],
        tell: Callable[[str], None],
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._rates = RateTable()
        self._load = load
        self._tell = tell
        self._current: list[Worker] = []
        self._coming: list[Worker] = []
        """A reload's workers, until all of them serve."""
        self._coming_config = config
        self._leaving: list[Worker] = []
        self._reload_wanted = self._ready = self._stopping = False
        self._not_before = 0.0
        self._code = 0

    def run(self) -> int:
        """The exit code, when all workers are gone; in a worker, when that one's work is done.

        SIGHUP reloads; SIGTERM and SIGINT stop, and a second one does so without waiting. Raises in
        a worker what `work` does.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        with suppress(TokenizerError):  # The workers log it, and estimate.
            preload(self._config.tiktoken_cache_dir)
        load_detector()  # Once for all workers too.
        gc.freeze()  # What is there now is shared: a collection would write to every page of it.
        gc.enable()
        try:
            return self._watch()
        except _Born as born:
            me = born
        rates = RateLimiter(self._rates, time.monotonic, lane=me.lane)
        for sock in self._sockets:
            if sock is not me.sock:
                sock.close()  # Else its callers would wait here when nobody serves it any more.
        work(me.config, me.sock, rates, me.pipe, is_admin=me.sock is self._sockets[-1])
        return 0

    def _watch(self) -> int:
        self._keep_full()
        while self._everyone() or not self._stopping:
            starting = not all(worker.serves for worker in self._everyone())
            told = signal.sigtimedwait(SIGNALS, STARTING_S if starting else BEAT_S)
            match told.si_signo if told else None:
                case signal.SIGTERM | signal.SIGINT:
                    self._stop()
                case signal.SIGHUP:
                    self._reload_wanted = True
            self._listen()
            self._reap()
            if not self._stopping:
                self._keep_full()
                self._go_on_reloading()
                self._tell("WATCHDOG=1")
        LOG.info("stopped")
        return self._code

    def _everyone(self) -> list[Worker]:
        return [*self._current, *self._coming, *self._leaving]

    def _crew(self, config: Config) -> list[socket.socket]:
        """What each worker is to listen on."""
        public, admin = self._sockets[0], self._sockets[-1]
        return [public] * config.server.workers + [admin] * (admin is not public)

    def _keep_full(self) -> None:
        missing = self._crew(self._config)
        for worker in self._current:
            missing.remove(worker.sock)
        while missing and _now() >= self._not_before:
            try:
                self._current.append(self._spawn(self._config, missing[0]))
                del missing[0]
            except OSError as error:
                LOG.error("worker_not_started", error=error.strerror)
                self._not_before = _now() + AGAIN_S
        if not self._ready and not missing and all(worker.serves for worker in self._current):
            self._ready = True
            public, admin = self._sockets[0], self._sockets[-1]
            LOG.info("listening", public=str(address_of(public)), admin=str(address_of(admin)))
            self._tell("READY=1")

    def _spawn(self, config: Config, sock: socket.socket) -> Worker:
        taken = {worker.lane for worker in self._everyone()}
        lane = next(lane for lane in range(LANES) if lane not in taken)
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            # While one process holds the reading end of a pipe, its writer cannot see us die.
            for other in self._everyone():
                os.close(other.pipe)
            os.close(reading)
            raise _Born(config, lane, sock, writing)
        os.close(writing)
        return Worker(pid, reading, lane, sock, _now())

    def _listen(self) -> None:
        for worker in self._everyone():
            try:
                if os.read(worker.pipe, 4096):
                    worker.heard_at, worker.serves = _now(), True
            except BlockingIOError:
                if _now() - worker.heard_at > SILENT_S:
                    LOG.error("worker_hung", pid=worker.pid)
                    os.kill(worker.pid, signal.SIGKILL)
                    worker.heard_at = _now()

    def _reap(self) -> None:
        for worker in self._everyone():
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                os.close(worker.pipe)
                self._rates.forget(worker.lane)
                self._bury(worker, os.waitstatus_to_exitcode(status))

    def _bury(self, worker: Worker, code: int) -> None:
        told_to_go = worker in self._leaving or self._stopping
        if told_to_go and code == -STOP:
            code = 0  # It handles that until its loop is closed and its work is done.
        if code:
            LOG.error("worker_died", pid=worker.pid, code=code)
        if told_to_go:
            if self._stopping:
                self._code = self._code or int(code != 0 and worker.serves)
            for group in (self._current, self._coming, self._leaving):
                if worker in group:
                    group.remove(worker)
        elif worker in self._coming:
            self._coming.remove(worker)
            self._give_up_reload(["A new worker could not start; the old ones stay."])
        else:
            self._current.remove(worker)
            if not worker.serves:
                self._not_before = _now() + AGAIN_S
            if not self._ready:
                self._code = code if code > 0 else 1
                self._stop()

    def _go_on_reloading(self) -> None:
        if self._coming and all(worker.serves for worker in self._coming):
            for worker in self._current:
                os.kill(worker.pid, RETIRE)
            self._leaving += self._current
            self._current, self._coming = self._coming, []
            self._config = self._coming_config
            LOG.info("reloaded", workers=len(self._current))
            self._tell("READY=1")
        elif self._reload_wanted and not self._coming:
            self._reload_wanted = False
            # sd_notify(3): the time is for systemd's Type=notify-reload, since its version 253.
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                self._begin_reload()
            except ConfigError as error:
                self._give_up_reload(error.problems)
            except OSError as error:
                self._give_up_reload([f"A new worker could not start: {error.strerror}."])

    def _begin_reload(self) -> None:
        new = self._load()
        now = _fixed(self._config)
        if changed := [name for name, value in _fixed(new).items() if value != now[name]]:
            raise ConfigError([f"{name}: a change needs a restart" for name in changed])
        self._coming_config = new
        crew = self._crew(new)
        if len(self._everyone()) + len(crew) > LANES:
            raise ConfigError(["Too many earlier workers still run."])
        for sock in crew:
            self._coming.append(self._spawn(new, sock))

    def _give_up_reload(self, problems: list[str]) -> None:
        LOG.error("reload_failed", problems=problems)
        for worker in self._coming:
            os.kill(worker.pid, STOP)
        self._leaving += self._coming
        self._coming = []
        self._tell("READY=1")

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1")
            for sock in self._sockets:
                sock.close()
        for worker in self._everyone():
            os.kill(worker.pid, STOP)


def _fixed(config: Config) -> dict[str, object]:
    """What stays as it was at the start."""
    return {
        "server.listen": config.server.listen,
        "server.admin_listen": config.server.admin_listen,
        "storage.data_dir": config.storage.data_dir,
    }


def _now() -> float:
    return time.monotonic()
