"""What goes to the provider, and what its failures are called."""

import asyncio
import socket

import pytest
from conftest import Proxy, StartProxy
from multidict import CIMultiDict

from mintoken.upstream import PIECE, in_pieces, request_headers, without_intensity


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("intensity=full", ""),
        ("a=1&intensity=full&b=%2F+x&intensity", "a=1&b=%2F+x"),
        ("Intensity=full&intensity2=x", "Intensity=full&intensity2=x"),
    ],
)
def test_only_the_intensity_is_taken_out_of_the_query(query: str, kept: str) -> None:
    assert without_intensity(query) == kept


def test_hop_by_hop_headers_and_those_named_in_connection_stay_here() -> None:
    incoming = CIMultiDict(
        [
            ("Host", "mintoken"),
            ("Connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("TE", "trailers"),
            ("Via", "1.1 x"),
            ("Forwarded", "for=x"),
            ("X-Forwarded-Proto", "https"),
            ("Referer", "x"),
            ("Origin", "x"),
            ("X-Mintoken-Anything", "x"),
            ("X-Client-Request-Id", "theirs"),
            ("Accept", "a"),
            ("Accept", "b"),
            ("X-Broken", "\udcff"),
        ]
    )
    outgoing = request_headers(incoming, credential={"Authorization": "Bearer k"}, request_id="id")
    assert list(outgoing.items()) == [
        ("Accept", "a"),
        ("Accept", "b"),
        ("Authorization", "Bearer k"),
        ("X-Client-Request-Id", "id"),
    ]


async def failure(proxy: Proxy) -> tuple[int, str, str]:
    answer = await proxy.post()
    error = (await answer.json())["error"]
    assert (await proxy.settled())[0]["status"] == answer.status
    return answer.status, error["code"], error["message"]


async def test_an_unknown_host_is_said(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(upstream_base_url="http://provider.invalid/v1")
    status, code, message = await failure(proxy)
    assert (status, code) == (502, "upstream_unreachable")
    assert "host name" in message


async def test_a_failed_tls_handshake_is_said(start_proxy: StartProxy) -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        proxy = await start_proxy(upstream_base_url=f"https://127.0.0.1:{port}/v1")
        status, code, message = await failure(proxy)
    assert (status, code) == (502, "upstream_unreachable")
    assert "TLS" in message


async def test_a_connect_that_hangs_is_given_up(start_proxy: StartProxy) -> None:
    with socket.socket() as full:
        # A listener that never accepts, its queue filled up: the next handshake gets no answer.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        proxy = await start_proxy(
            upstream_base_url=f"http://127.0.0.1:{address[1]}/v1", upstream_connect_timeout=0.2
        )
        status, code, message = await asyncio.wait_for(failure(proxy), 10)
        for filler in fillers:
            filler.close()
    assert (status, code) == (502, "upstream_unreachable")
    assert "too long" in message


@pytest.mark.parametrize(("pieces", "turns"), [(1, 0), (4, 0), (5, 1), (8, 1), (9, 2)])
async def test_others_get_their_turn_between_the_pieces_of_a_body_but_not_after_the_last(
    pieces: int, turns: int
) -> None:
    # An answer that comes in that turn finds its request unfinished, and the connection is closed.
    taken, body = 0, bytes(pieces * PIECE)
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal taken, counting
        taken += 1
        counting = loop.call_soon(count)

    counting = loop.call_soon(count)
    assert b"".join([bytes(piece) async for piece in in_pieces(body)]) == body
    counting.cancel()
    assert taken == turns
