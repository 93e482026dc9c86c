"""The provider's answer on its way back to the caller."""

import asyncio

from aiohttp import web

from mintoken.context import CONFIG, CONTEXT, TOKENIZER, RequestContext
from mintoken.errors import Code, MintokenError
from mintoken.exchange import Turn
from mintoken.models import Admission, Outcome
from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.relay import PLAIN, UNPACKED_INLINE, BodyCopy, EventReader, pipe_body, pipe_events
from mintoken.sse import EventFilter
from mintoken.upstream import Answer, invalid_response

PROTOCOL = OpenAIChat()
HOLD_LIMIT = 1024 * 1024
"""Bytes of an answer held back so that the quota headers can include it (contract §3)."""
PARSE_INLINE = 64 * 1024
"""Bytes of an answer above which its usage is read off the event loop."""
_BROKEN = {
    Outcome.UPSTREAM_BROKE: Code.UPSTREAM_BROKE,
    Outcome.UPSTREAM_TIMEOUT: Code.UPSTREAM_TIMEOUT,
    Outcome.SHUTDOWN: Code.SERVER_SHUTTING_DOWN,
}


async def relay(request: web.Request, turn: Turn, answer: Answer) -> web.StreamResponse:
    """Relay the answer to a chat: a stream of events as it comes, a body in whole.

    Raises MintokenError `upstream_invalid_response` when it is not what was asked for.
    """
    ctx = request[CONTEXT]
    if answer.status < 400:
        if turn.stream and answer.content_type == "text/event-stream":
            return await _relay_events(request, answer)
        if not turn.stream and not _is_json(answer.content_type):
            ctx.outcome, ctx.status = Outcome.UPSTREAM_ERROR, Code.UPSTREAM_INVALID_RESPONSE.status
            raise invalid_response("It is not JSON.")
        ctx.meter = PROTOCOL.meter()
    return await relay_body(request, answer)


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


async def _relay_events(request: web.Request, answer: Answer) -> web.StreamResponse:
    ctx, config = request[CONTEXT], request.app[CONFIG].upstream
    headers = answer.headers()
    headers.popall("Content-Length", None)  # Our own events may be added.
    headers["X-Accel-Buffering"] = "no"
    headers["Cache-Control"] = "no-cache"
    meter = ctx.meter = PROTOCOL.meter()
    response = await _prepare(request, web.StreamResponse(status=answer.status, headers=headers))
    reader = EventReader(meter, answer.content_encoding)
    # A compressed stream cannot be filtered byte for byte, and to SDKs that event is a normal one.
    filtered = ctx.asked_usage and answer.content_encoding in PLAIN
    events = EventFilter(meter.usage_sign, meter.only_usage) if filtered else None

    async def write(data: bytes) -> None:
        await response.write(data)
        ctx.bytes_out += len(data)

    async def write_wanted(data: bytes) -> None:
        assert events is not None
        if wanted := events.feed(data):
            await write(wanted)

    ctx.outcome = await pipe_events(
        answer,
        write if events is None else write_wanted,
        reader,
        meter.ended,
        keepalive_after=config.keepalive_after,
        idle_timeout=config.idle_timeout,
    )
    if events is not None and (rest := events.rest()):
        await write(rest)
    if code := _BROKEN.get(ctx.outcome):
        ctx.error = code
        if reader.at_boundary:
            await write(PROTOCOL.error(MintokenError(code), in_stream=True))
        _hang_up(request)
    else:
        await response.write_eof()
    return response


async def relay_body(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Relay an answer that is no stream of events: in one piece, or as it comes if it is large."""
    ctx, app = request[CONTEXT], request.app
    copy, reply = BodyCopy(answer.content_encoding), _Reply(request, answer)
    try:
        outcome = await pipe_body(
            answer, reply.write, copy, idle_timeout=app[CONFIG].upstream.idle_timeout
        )
    except BaseException:
        if ctx.meter is not None:
            ctx.meter.skip(copy.size)  # The caller left: what came is estimated.
        raise
    await _read_usage(ctx, copy)
    if not reply.begun:
        await _count_in(app, ctx)
    if outcome is Outcome.OK:
        ctx.outcome = Outcome.OK if answer.status < 400 else Outcome.UPSTREAM_ERROR
        return await reply.end()
    ctx.outcome, ctx.error = outcome, _BROKEN[outcome]
    return await reply.break_off()


class _Reply:
    """A body for the caller, held back as long as it is small.

    In one piece, its quota headers can include it (contract §3), and it takes one write, not two.
    """

    def __init__(self, request: web.Request, answer: Answer) -> None:
        self._request = request
        self._answer = answer
        self._held: list[bytes] = []
        self._size = 0
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        """Is its head out?"""
        return self._response is not None

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._response is None:
            self._held.append(data)
            if self._size > HOLD_LIMIT:
                await self._begin()
        else:
            await self._pass_on(self._response, data)

    async def end(self) -> web.StreamResponse:
        """It is complete."""
        response = self._response
        if response is None:
            response = web.Response(
                status=self._answer.status,
                headers=self._answer.headers(),
                body=b"".join(self._held),
            )
            await _prepare(self._request, response)
            self._request[CONTEXT].bytes_out = self._size
        await response.write_eof()
        return response

    async def break_off(self) -> web.StreamResponse:
        """It never will be: what came goes out, and the connection is closed."""
        response = self._response or await self._begin()
        _hang_up(self._request)
        return response

    async def _begin(self) -> web.StreamResponse:
        answer = self._answer
        response = self._response = web.StreamResponse(
            status=answer.status, headers=answer.headers()
        )
        await _prepare(self._request, response)
        held, self._held = self._held, []
        for data in held:  # Not joined: others come in while the caller takes them.
            await self._pass_on(response, data)
        return response

    async def _pass_on(self, response: web.StreamResponse, data: bytes) -> None:
        await response.write(data)
        self._request[CONTEXT].bytes_out += len(data)


async def _read_usage(ctx: RequestContext, copy: BodyCopy) -> None:
    if ctx.meter is None:
        return
    small = copy.size <= PARSE_INLINE and copy.read_into(ctx.meter, limit=UNPACKED_INLINE)
    if not small and not await asyncio.to_thread(copy.read_into, ctx.meter):
        ctx.meter.skip(copy.size)


async def _count_in(app: web.Application, ctx: RequestContext) -> None:
    """Count this answer into the month that its headers show."""
    month, reservation, prompt = ctx.month, ctx.reservation, ctx.prompt
    if month is None or not month.limit or reservation is None or prompt is None:
        return
    ctx.usage = await app[TOKENIZER].measure(
        ctx.spoken(), prompt, reservation.model, prompt_bytes=reservation.bytes_in
    )
    used = month.used + ctx.usage.charged(app[CONFIG].quota.counts)
    ctx.month = Admission(month.admitted, used, month.limit)


async def _prepare(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    await response.prepare(request)
    request[CONTEXT].response = response
    return response


def _hang_up(request: web.Request) -> None:
    """Close without the terminal chunk, so that nobody takes the answer for a complete one."""
    if request.transport is not None:
        request.transport.close()
