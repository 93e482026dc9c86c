"""Who is asked: the provider itself, a bare relay before it on either event loop, and Mintoken."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from benchmarks import bodies
from benchmarks.processes import ENVIRON, Tree, free_port, python, running

DIRECT, BARE, BARE_UVLOOP, MINTOKEN = NAMES = ("direct", "bare", "bare on uvloop", "mintoken")
JSON = {"Content-Type": "application/json"}
MONTHLY_TOKENS = 10**14
"""A limit, so that the quota is looked at, and one that is never reached."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running server."""

    name: str
    port: int
    tree: Tree
    start_s: float
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    admin_port: int = 0

    def request(self, body: bytes) -> bytes:
        """The request as it goes over the wire."""
        return bodies.whole_request(body, self.headers)


PROBE = bodies.whole_request(bodies.small(), JSON)
READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def provider(folder: Path) -> Iterator[Target]:
    port = free_port()
    command = python("benchmarks.provider", str(port))
    with running(command, port=port, probe=PROBE, log=folder / "provider.log") as (tree, start_s):
        yield Target(DIRECT, port, tree, start_s)


@contextmanager
def bare(folder: Path, upstream: Target, *, name: str = BARE) -> Iterator[Target]:
    port = free_port()
    command = python("benchmarks.bare", str(port), f"http://127.0.0.1:{upstream.port}")
    if name == BARE_UVLOOP:
        command.append("uvloop")
    with running(command, port=port, probe=PROBE, log=folder / "bare.log") as (tree, start_s):
        yield Target(name, port, tree, start_s)


@contextmanager
def mintoken(
    folder: Path, upstream: Target, *, workers: int = 1, account: str = "bench"
) -> Iterator[Target]:
    """`mintoken serve` with everything on: a key of level `full`, an account with a quota."""
    port, admin_port = free_port(), free_port()
    environ = ENVIRON | {
        "MINTOKEN_UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
        "MINTOKEN_SERVER_LISTEN": f"127.0.0.1:{port}",
        "MINTOKEN_SERVER_ADMIN_LISTEN": f"127.0.0.1:{admin_port}",
        "MINTOKEN_SERVER_WORKERS": str(workers),
        "MINTOKEN_STORAGE_DATA_DIR": str(folder / "data"),
    }
    log = folder / "mintoken.log"
    headers = JSON | {
        "Authorization": f"Bearer {_key(folder, environ, account)}",
        "X-Provider-Key": "sk-benchmark-0123456789",
    }
    command = python("mintoken", "serve")
    with running(command, port=port, probe=READY, log=log, environ=environ) as (tree, start_s):
        yield Target(MINTOKEN, port, tree, start_s, headers, admin_port)


def _key(folder: Path, environ: Mapping[str, str], account: str) -> str:
    def run(*arguments: str) -> dict[str, str]:
        command = python("mintoken", *arguments, "--json")
        out = subprocess.run(command, env=environ, cwd=folder, check=True, stdout=subprocess.PIPE)
        answer: dict[str, str] = orjson.loads(out.stdout)
        return answer

    if not (folder / "data").exists():
        run("accounts", "create", account, "--monthly-tokens", str(MONTHLY_TOKENS))
    return run("keys", "create", "--account", account, "--intensity", "full", "--smart")["key"]


@contextmanager
def everyone(folder: Path) -> Iterator[list[Target]]:
    """All of them, before one provider, which comes first."""
    with ExitStack() as stack:
        direct = stack.enter_context(provider(folder))
        yield [
            direct,
            stack.enter_context(bare(folder, direct)),
            stack.enter_context(bare(folder, direct, name=BARE_UVLOOP)),
            stack.enter_context(mintoken(folder, direct)),
        ]
