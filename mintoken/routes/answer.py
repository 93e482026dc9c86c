"""The provider's answer on its way back to the caller."""

import asyncio
from dataclasses import replace

from aiohttp import web

from mintoken.context import CONFIG, CONTEXT, TOKENIZER, RequestContext
from mintoken.errors import Code, MintokenError
from mintoken.models import Outcome, Turn
from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.relay import UNPACKED_INLINE, BodyCopy, EventReader, pipe_body, pipe_events
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
    if answer.status >= 400:
        return await relay_body(request, answer, hold=False)
    if turn.stream and answer.content_type == "text/event-stream":
        return await _relay_events(request, answer)
    if not turn.stream and not _is_json(answer.content_type):
        ctx.outcome, ctx.status = Outcome.UPSTREAM_ERROR, Code.UPSTREAM_INVALID_RESPONSE.status
        raise invalid_response("It is not JSON.")
    ctx.meter = PROTOCOL.meter()
    return await relay_body(request, answer, hold=bool(ctx.month and ctx.month.limit))


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

    async def write(data: bytes) -> None:
        await response.write(data)
        ctx.bytes_out += len(data)

    ctx.outcome = await pipe_events(
        answer,
        write,
        reader,
        meter.ended,
        keepalive_after=config.keepalive_after,
        idle_timeout=config.idle_timeout,
    )
    if code := _BROKEN.get(ctx.outcome):
        ctx.error = code
        if reader.at_boundary:
            await write(PROTOCOL.error(MintokenError(code), in_stream=True))
        _hang_up(request)
    else:
        await response.write_eof()
    return response


async def relay_body(request: web.Request, answer: Answer, *, hold: bool) -> web.StreamResponse:
    """Relay an answer that is not a stream of events, held back first where `hold` says so."""
    ctx = request[CONTEXT]
    response = web.StreamResponse(status=answer.status, headers=answer.headers())
    copy = BodyCopy(answer.content_encoding)
    held: bytearray | None = bytearray() if hold else None
    if held is None:
        await _prepare(request, response)

    async def write(data: bytes) -> None:
        nonlocal held
        if held is not None:
            held += data
            if len(held) <= HOLD_LIMIT:
                return
            data, held = bytes(held), None
            await _prepare(request, response)
        await response.write(data)
        ctx.bytes_out += len(data)

    idle_timeout = request.app[CONFIG].upstream.idle_timeout
    try:
        outcome = await pipe_body(answer, write, copy, idle_timeout=idle_timeout)
    except BaseException:
        if ctx.meter is not None:
            ctx.meter.skip(copy.size)  # The caller left: what came is estimated.
        raise
    await _read_usage(ctx, copy)
    if held is not None:
        await _count_in(request, ctx)
        data, held = bytes(held), None
        await _prepare(request, response)
        await write(data)
    if outcome is Outcome.OK:
        ctx.outcome = Outcome.OK if answer.status < 400 else Outcome.UPSTREAM_ERROR
        await response.write_eof()
    else:
        ctx.outcome, ctx.error = outcome, _BROKEN[outcome]
        _hang_up(request)
    return response


async def _read_usage(ctx: RequestContext, copy: BodyCopy) -> None:
    if ctx.meter is None:
        return
    small = copy.size <= PARSE_INLINE and copy.read_into(ctx.meter, limit=UNPACKED_INLINE)
    if not small and not await asyncio.to_thread(copy.read_into, ctx.meter):
        ctx.meter.skip(copy.size)


async def _count_in(request: web.Request, ctx: RequestContext) -> None:
    """Count this answer into the month that its headers show."""
    if ctx.reservation is None or ctx.turn is None or ctx.month is None:
        return
    usage = await request.app[TOKENIZER].measure(
        ctx.spoken(),
        ctx.turn.prompt,
        ctx.reservation.model,
        prompt_bytes=ctx.reservation.bytes_in,
    )
    ctx.usage = usage
    used = ctx.month.used + usage.charged(request.app[CONFIG].quota.counts)
    ctx.month = replace(ctx.month, used=used)


async def _prepare(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    await response.prepare(request)
    request[CONTEXT].response = response
    return response


def _hang_up(request: web.Request) -> None:
    """Close without the terminal chunk, so that nobody takes the answer for a complete one."""
    if request.transport is not None:
        request.transport.close()
