"""The only client of the network: asks the provider and reads its answer."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict
from yarl import URL

from mintoken.errors import (
    Code,
    MintokenError,
    UpstreamBrokeError,
)
from mintoken.patience import Patience, Waits

PIECE = 256 * 1024
"""Bytes of a request's body that are written at once."""
PIECES_IN_A_ROW = 4
"""As many as are written before others get their turn: 1 ms."""

# RFC 9110 §7.6.1: they speak of one connection, not of the message.
_HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    "transfer-encoding upgrade".split()
)
_KEPT_FROM_UPSTREAM = _HOP_BY_HOP | frozenset(
    "host content-length authorization x-provider-key cookie forwarded via referer origin expect "
    "x-client-request-id".split()
)
_KEPT_FROM_CALLER = _HOP_BY_HOP | {"set-cookie"}


def request_headers(
    incoming: Mapping[str, str], *, credential: Mapping[str, str], request_id: str
) -> CIMultiDict[str]:
    """The caller's end-to-end headers for the upstream (contract §3), with the credential."""
    outgoing = CIMultiDict(
        _end_to_end(incoming, _KEPT_FROM_UPSTREAM, "x-mintoken-", "x-forwarded-")
    )
    outgoing.update(credential)
    outgoing["X-Client-Request-Id"] = request_id
    return outgoing


def _end_to_end(
    headers: Mapping[str, str], kept: frozenset[str], *prefixes: str
) -> Iterator[tuple[str, str]]:
    if "Connection" in headers:
        values = (value for name, value in headers.items() if name.lower() == "connection")
        kept = kept.union(token.strip().lower() for value in values for token in value.split(","))
    for name, value in headers.items():
        lower = name.lower()
        if lower in kept or lower.startswith(prefixes):
            continue
        # aiohttp writes headers as UTF-8 and cannot write back the bytes that were not.
        if value.isascii() or value.isprintable():
            yield name, value


class Answer:
    """The upstream's answer: its head now, its body as it comes."""

    def __init__(self, response: aiohttp.ClientResponse, patience: Patience) -> None:
        self._response = response
        self._patience = patience
        self.status = response.status
        self.content_type = (
            response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        )
        self.content_encoding = response.headers.get("Content-Encoding", "").strip().lower()
        self.content_length = response.content_length
        self.request_id = response.headers.get("x-request-id", "")

    def headers(self) -> CIMultiDict[str]:
        """The end-to-end headers for the caller (contract §3)."""
        return CIMultiDict(_end_to_end(self._response.headers, _KEPT_FROM_CALLER, "x-mintoken-"))

    async def read(self, wait_s: float) -> bytes:
        """The next bytes of the body as the network delivered them; b"" at its end.

        Raises TimeoutError after `wait_s` seconds of silence, UpstreamBrokeError when the body
        ends too early, InterruptedByShutdownError when this server stops.
        """
        content = self._response.content
        try:
            if content.at_eof():
                return b""
            with self._patience.at_most(wait_s):
                return await content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            # aiohttp raises before it hands out what it had buffered.
            raise UpstreamBrokeError(content._read_nowait(-1)) from None

    def close(self) -> None:
        """Let go of the connection; it is kept for reuse only if the body was read to its end."""
        self._patience.close()
        self._response.close()


async def in_pieces(body: bytes) -> AsyncIterator[memoryview]:
    """The body in pieces: the socket would copy a large one at once, while the loop waits."""
    view = memoryview(body)
    for number, start in enumerate(range(0, len(body), PIECE)):
        if number and number % PIECES_IN_A_ROW == 0:
            await asyncio.sleep(0)  # Writing itself waits for a slow reader only.
        yield view[start : start + PIECE]


class _Connection(ResponseHandler):
    """Tells the reader of a body when what came is no HTTP; aiohttp 3.14 lets it wait for ever."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        payload = self._payload
        if payload is not None and payload is not EMPTY_PAYLOAD and len(payload._buffer) > 1:
            _join(payload)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        # aiohttp 3.14 calls this for every chunk that is read, and parses nothing again: 5 µs each.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def set_exception(self, *args: Any) -> None:
        super().set_exception(*args)
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError())


def _join(content: aiohttp.StreamReader) -> None:
    """Make one piece of what came at once. aiohttp 3.14 keeps it by HTTP's chunks, which are of no
    meaning to anybody, and takes 4 µs to hand out each: a third of the CPU of a fast stream.
    """
    joined = b"".join(content._buffer)
    content._buffer.clear()
    content._buffer.append(joined)
    if content._http_chunk_splits:
        content._http_chunk_splits.clear()


class Upstream:
    """The provider's API at `base_url`; timeouts are in seconds."""

    def __init__(self, base_url: str, *, connect_timeout: float, first_byte_timeout: float) -> None:
        self._base_url = base_url
        self._first_byte_timeout = first_byte_timeout
        self._waits = Waits()
        connector = aiohttp.TCPConnector(limit=0)
        protocol: type[ResponseHandler] = _Connection
        connector._factory = partial(protocol, loop=asyncio.get_running_loop())
        # Nothing is shared between callers, followed, unpacked or taken from the environment.
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        self._session._retry_connection = False  # The caller decides if anything is asked twice.

    async def send(
        self, method: str, path: str, query: str, headers: CIMultiDict[str], body: bytes | None
    ) -> Answer:
        """Ask the upstream; its answer when the head has arrived.

        `path` is below the base URL and percent-encoded as the caller sent it. Raises MintokenError
        `upstream_unreachable`, `upstream_timeout`, `upstream_invalid_response` or
        `upstream_redirect`, and InterruptedByShutdownError.
        """
        url = _url(f"{self._base_url}{path}{'?' + query if query else ''}")
        data: bytes | AsyncIterator[memoryview] | None = body
        if body is not None and len(body) > PIECE:
            headers["Content-Length"] = str(len(body))
            data = in_pieces(body)
        patience = Patience(self._waits)
        try:
            with patience.at_most(self._first_byte_timeout):
                response = await self._session.request(
                    method, url, headers=headers, data=data, allow_redirects=False
                )
        except BaseException as error:  # noqa: BLE001 - raised again, in our words
            patience.close()
            raise _told(error) from None
        answer = Answer(response, patience)
        if 200 <= answer.status < 300 or answer.status >= 400:
            return answer
        answer.close()
        if answer.status >= 300:
            raise MintokenError(Code.UPSTREAM_REDIRECT, headers=_DO_NOT_RETRY)
        raise invalid_response("It tried to switch protocols.")

    def interrupt(self) -> None:
        """End every wait for the upstream with InterruptedByShutdownError."""
        self._waits.stop()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


@lru_cache(maxsize=64)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


_DO_NOT_RETRY = {"x-should-retry": "false"}


def _told(error: BaseException) -> BaseException:
    """What went wrong with asking, in our words."""
    match error:
        case (
            aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() | aiohttp.InvalidURL()
        ):
            return _unreachable(error)
        case TimeoutError():
            return MintokenError(Code.UPSTREAM_TIMEOUT, headers=_DO_NOT_RETRY)
        case aiohttp.ClientError() | OSError() | ValueError():
            return invalid_response("It closed the connection or did not speak HTTP.")
    return error


def _unreachable(error: Exception) -> MintokenError:
    match error:
        case aiohttp.ConnectionTimeoutError():
            detail = "Connecting to it took too long."
        case aiohttp.ClientConnectorDNSError():
            detail = "Its host name could not be resolved."
        case aiohttp.ClientSSLError():
            detail = "The TLS handshake with it failed."
        case _:
            detail = "It refused the connection."
    return MintokenError(
        Code.UPSTREAM_UNREACHABLE,
        f"{detail} Nothing was sent to it; send the request again in a moment.",
        headers={"x-should-retry": "true"},
    )


def invalid_response(detail: str) -> MintokenError:
    """The error for an answer that cannot be relayed; a retry might be billed twice."""
    return MintokenError(Code.UPSTREAM_INVALID_RESPONSE, detail, headers=_DO_NOT_RETRY)


def without_intensity(raw_query: str) -> str:
    """The query string with every `intensity` parameter taken out, the rest byte for byte."""
    return "&".join(_kept_parameters(raw_query.split("&")))


def _kept_parameters(parameters: Iterable[str]) -> Iterator[str]:
    return (p for p in parameters if p.partition("=")[0] != "intensity")
