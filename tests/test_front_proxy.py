"""The README's front proxies, run as they are written there, before the real server."""

import asyncio
import io
import json
import os
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme
from conftest import CHAT, Proxy, StartProxy
from fake_upstream import DIE, DONE, END, STALL, FakeUpstream, delta, stream_head

from mintoken.config import Config
from mintoken.connection import KEEP_ALIVE_S

README = (Path(__file__).parent.parent / "README.md").read_text()
STREAM = CHAT | {"stream": True}
Asking = AbstractAsyncContextManager[aiohttp.ClientResponse]


def snippet(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    return text


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with what only a real installation has replaced; each change has to be possible."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def nginx(program: str, folder: Path, port: int, proxy: Proxy) -> list[str]:
    server = replaced(
        snippet("nginx"),
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "/etc/ssl/certs/llm.example.com.pem": f"{folder}/cert.pem",
            "/etc/ssl/private/llm.example.com.key": f"{folder}/key.pem",
            "http://127.0.0.1:8787;": f"{proxy.url};",
        },
    )
    kept_in = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root, its workers would be somebody else, who cannot see this folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    config = (
        f"{user}pid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{kept_in}{server}}}\n"
    )
    (folder / "nginx.conf").write_text(config)
    foreground = ["-e", "stderr", "-g", "daemon off; master_process off;"]
    return [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), *foreground]


def caddy(program: str, folder: Path, port: int, proxy: Proxy) -> list[str]:
    site = replaced(
        snippet("caddyfile"),
        {
            "llm.example.com {": (
                f"https://localhost:{port} {{\nbind 127.0.0.1\n"
                f"tls {folder}/cert.pem {folder}/key.pem"
            ),
            " 127.0.0.1:8787 ": f" {proxy.url.removeprefix('http://')} ",
        },
    )
    (folder / "Caddyfile").write_text(f"{{\nadmin off\nauto_https disable_redirects\n}}\n{site}")
    return [program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@dataclass
class Front:
    """A running front proxy: where and how to ask, and the server behind it."""

    url: str
    session: aiohttp.ClientSession
    trusting: ssl.SSLContext
    proxy: Proxy

    def post(self, body: object = CHAT, **headers: str) -> Asking:
        data = io.BytesIO(json.dumps(body).encode())
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(
            f"{self.url}/v1/chat/completions",
            data=data,
            headers={"Content-Type": "application/json"} | self.proxy.headers | named,
        )


@pytest.fixture(params=[nginx, caddy], ids=lambda make: make.__name__)
async def front(
    request: pytest.FixtureRequest,
    start_proxy: StartProxy,
    tmp_path: Path,
    unused_tcp_port: int,
) -> AsyncIterator[Front]:
    make: Callable[[str, Path, int, Proxy], list[str]] = request.param
    program = shutil.which(make.__name__, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(f"{make.__name__} is not there; `make programs` installs it or says how to")
    proxy = await start_proxy()
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    log = tmp_path / "front.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *make(program, tmp_path, unused_tcp_port, proxy), stdout=output, stderr=output,
            env=os.environ | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        )  # fmt: skip
    connector = aiohttp.TCPConnector(ssl=trusting)
    try:
        async with aiohttp.ClientSession(connector=connector) as session:
            front = Front(f"https://localhost:{unused_tcp_port}", session, trusting, proxy)
            await until_it_answers(front, process, log)
            yield front
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def until_it_answers(front: Front, process: asyncio.subprocess.Process, log: Path) -> None:
    for _ in range(1000):
        assert process.returncode is None, log.read_text()
        with suppress(aiohttp.ClientConnectionError):
            async with front.session.get(f"{front.url}/healthz") as answer:
                assert answer.status == 200
                return
        await asyncio.sleep(0.01)
    pytest.fail(f"it did not start in 10 s: {log.read_text()}")


async def test_each_piece_of_a_stream_arrives_when_it_is_sent(
    front: Front, upstream: FakeUpstream
) -> None:
    words = [f"word{number} " for number in range(5)]
    gates = [asyncio.Event() for _ in words]
    steps = [step for word, gate in zip(words, gates, strict=True) for step in (delta(word), gate)]
    upstream.play(stream_head(), *steps, delta(finish="stop"), DONE, END)
    async with front.post(STREAM) as answer:
        got = b""
        for word, gate in zip(words, gates, strict=True):
            # The next one is only sent once this one is here.
            while word.encode() not in got:
                got += await asyncio.wait_for(answer.content.readany(), 5)
            gate.set()
        assert (got + await answer.read()).endswith(b"data: [DONE]\n\n")
    [row] = await front.proxy.settled()
    assert row["outcome"] == "ok"


async def test_a_caller_that_leaves_is_noticed_by_the_provider(
    front: Front, upstream: FakeUpstream
) -> None:
    upstream.play(stream_head(), delta("a"), STALL)
    async with front.post(STREAM) as answer:
        await answer.content.readany()
        # Not close(): asyncio then says goodbye in TLS first, and waits for an answer.
        assert answer.connection is not None
        assert answer.connection.transport is not None
        answer.connection.transport.abort()
        await asyncio.wait_for(upstream.requests[0].gone.wait(), 5)
    [row] = await front.proxy.settled()
    assert row["outcome"] == "client_closed"


async def test_a_stream_that_breaks_does_not_look_complete(
    front: Front, upstream: FakeUpstream
) -> None:
    upstream.play(stream_head(), delta("a"), DIE)
    got = b""
    async with front.post(STREAM) as answer:
        # Debian 12's Caddy ends it in good order, so that only its content tells.
        with suppress(aiohttp.ClientPayloadError):
            while piece := await answer.content.readany():
                got += piece
    assert b'"error"' in got
    assert b"[DONE]" not in got


async def test_20_mb_pass(front: Front, upstream: FakeUpstream) -> None:
    large = {"messages": [{"role": "user", "content": "x" * 20_000_000}]}
    async with front.post(CHAT | large) as answer:
        assert answer.status == 200
    assert len(upstream.requests[0].body) > 20_000_000


# Caddy wants all of a body before it passes the refusal on, and who sends it may be cut off.
@pytest.mark.parametrize("front", [nginx], indirect=True, ids=["nginx"])
async def test_a_body_beyond_the_limit_is_refused_in_json_before_it_is_sent(front: Front) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in front.proxy.headers.items())
    length = Config().server.max_body_bytes + 1
    host, port = front.url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=front.trusting)
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port}\r\n{head}"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    refusal = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    assert refusal.startswith(b"HTTP/1.1 413 ")
    assert b'"request_too_large"' in refusal
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def test_errors_come_through_and_large_headers_are_refused(front: Front) -> None:
    async with front.post(Authorization="Bearer wrong") as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["code"] == "invalid_api_key"
    async with front.post(X_Large="x" * 7000) as answer:
        assert answer.status == 200
    async with front.post(X_Large="x" * 10_000) as answer:
        assert answer.status in (400, 431)
    await front.proxy.settled()


def test_answers_may_take_as_long_as_mintoken_lets_them() -> None:
    [seconds] = re.findall(r"proxy_read_timeout (\d+)s;", snippet("nginx"))
    upstream = Config().upstream
    assert int(seconds) > max(upstream.first_byte_timeout, upstream.idle_timeout)


def test_caddy_closes_idle_connections_before_mintoken_does() -> None:
    [seconds] = re.findall(r"keepalive (\d+)s ", snippet("caddyfile"))
    assert int(seconds) < KEEP_ALIVE_S
    assert f"the {KEEP_ALIVE_S:g} s after which" in snippet("caddyfile")


def test_only_the_public_listener_is_exposed() -> None:
    server = Config().server
    for language in ("nginx", "caddyfile"):
        assert re.findall(r"127\.0\.0\.1:\d+", snippet(language)) == [str(server.listen)]
