"""The data plane: a request goes to the provider, its answer comes back."""

import asyncio
from contextlib import closing

from aiohttp import web

from mintoken.clock import month_of, seconds_to_next_month
from mintoken.context import (
    ACCOUNTS,
    CONFIG,
    CONTEXT,
    LEDGER,
    REFUSALS,
    UPSTREAM,
    Access,
    RequestContext,
)
from mintoken.errors import Code, InterruptedByShutdownError, MintokenError
from mintoken.exchange import Turn
from mintoken.models import Admission, Enforcement, Outcome, Progress, Reservation, label
from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.routes.answer import relay, relay_body
from mintoken.routes.body import read_body
from mintoken.routes.level import choose, is_quick
from mintoken.upstream import Answer, request_headers, without_intensity

PROTOCOL = OpenAIChat()
CHAT_PATH = PROTOCOL.path.removeprefix("/v1")
"""Below the provider's base URL."""
PREPARE_INLINE = 64 * 1024
"""Bytes of a request above which it is read off the event loop: 0.6 ms if it is odd."""
SOFT_RESERVATION = 1000
STRICT_RESERVATION = 4096
"""Tokens reserved: the most for soft, those without a cap for strict (contract §5)."""


async def models(request: web.Request) -> web.StreamResponse:
    """`GET /v1/models` and `/v1/models/{id}`: relayed, nothing injected, counted or recorded."""
    path = request.raw_path.partition("?")[0].removeprefix("/v1")
    with closing(await _ask(request, path, None)) as answer:
        return await relay_body(request, answer)


async def playground(request: web.Request) -> web.StreamResponse:
    """`POST /api/keys/{id}/playground`: a chat like the application's with this key."""
    return await chat(request)


async def chat(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions` (design §3, steps 5 to 9)."""
    ctx, app = request[CONTEXT], request.app
    pieces = await read_body(request)
    turn, sent = await _prepared(app, ctx, pieces)
    ctx.month = await _reserve(app, ctx, turn)
    with closing(await _ask_with_usage(request, turn, sent)) as answer:
        ctx.status = answer.status
        ctx.first_byte_ms = ctx.elapsed_ms()
        ctx.upstream_request_id = answer.request_id
        return await relay(request, turn, answer)


async def _prepared(
    app: web.Application, ctx: RequestContext, pieces: list[bytes]
) -> tuple[Turn, bytes]:
    """Prepared on the event loop if that is quick; slow rules keep one thread busy, not all."""
    if not is_quick(app, ctx):
        turn = app[ACCOUNTS].turn(ctx.key.account_id)
        await turn.acquire()
        working = asyncio.get_running_loop().run_in_executor(None, _prepare, app, ctx, pieces)
        # The thread goes on when the caller has gone, and the account's turn lasts as long.
        working.add_done_callback(lambda _: turn.release())
        return await asyncio.shield(working)
    if ctx.buffered_bytes <= PREPARE_INLINE:
        return _prepare(app, ctx, pieces)
    return await asyncio.to_thread(_prepare, app, ctx, pieces)


def _prepare(app: web.Application, ctx: RequestContext, pieces: list[bytes]) -> tuple[Turn, bytes]:
    """Read a body, choose its level, put the text in: the turn, and the body to send."""
    body = b"".join(pieces)
    pieces.clear()  # Here, where it may take as long as to join them.
    turn = PROTOCOL.read(body)
    wording = choose(app, ctx, turn)
    ctx.asked_usage = _asks_usage(app, ctx, turn)
    sent = PROTOCOL.inject(body, turn, wording.text, ask_usage=ctx.asked_usage)
    question = turn.usage_question if ctx.asked_usage else b""
    if len(sent) > len(body) + len(question):
        ctx.injected = wording
    # Whoever has to count the prompt counts the one that was sent.
    ctx.prompt = (lambda: PROTOCOL.read(sent).prompt()) if ctx.injected.text else turn.prompt
    return turn.judged(), sent


def _asks_usage(app: web.Application, ctx: RequestContext, turn: Turn) -> bool:
    """Is the provider asked for the usage of this stream, which the caller did not ask for?"""
    config = app[CONFIG].upstream
    wanted = config.ask_stream_usage or ctx.access is Access.AS_KEY
    if not wanted or not turn.usage_question:
        return False
    return not app[REFUSALS].has(config.base_url, turn.model)


def reserved_tokens(cap: int | None, enforcement: Enforcement) -> int:
    """What a request holds of its month until it is settled (contract §5)."""
    if enforcement is Enforcement.STRICT:
        return STRICT_RESERVATION if cap is None else cap
    return SOFT_RESERVATION if cap is None else min(cap, SOFT_RESERVATION)


async def _reserve(app: web.Application, ctx: RequestContext, turn: Turn) -> Admission:
    key, decision, assignment = ctx.key, ctx.decision, ctx.assignment
    assert decision is not None
    enforcement = app[CONFIG].quota.enforcement
    strict = enforcement is Enforcement.STRICT
    reserved = reserved_tokens(turn.cap, enforcement)
    reservation = Reservation(
        id=ctx.id,
        account_id=key.account_id,
        key_id=key.id,
        started_at=ctx.started_at,
        month=month_of(ctx.started_at),
        protocol=PROTOCOL.name,
        model=label(turn.model),
        stream=turn.stream,
        intensity=decision.intensity,
        reason=decision.reason,
        arm=assignment.arm.value,
        conversation=assignment.conversation,
        opening_bytes=assignment.opening_bytes,
        epoch=assignment.epoch,
        prompt_version=ctx.injected.version,
        injected_tokens=ctx.injected.tokens,
        bytes_in=ctx.buffered_bytes,
        reserved_tokens=reserved,
        needed_tokens=reserved if strict else 1,
    )
    ctx.reservation = reservation
    try:
        month = await app[LEDGER].reserve(reservation, lambda: _progress(ctx))
    except MintokenError:
        ctx.reservation = None
        raise
    if not month.admitted:
        ctx.reservation, ctx.month = None, month
        raise _quota_used_up(ctx.started_at)
    return month


def _progress(ctx: RequestContext) -> Progress | None:
    if ctx.meter is None:
        return None
    # Four bytes a token: only what a crash would leave, the real count comes at the end.
    return Progress(id=ctx.id, output_tokens=ctx.meter.text_bytes // 4, bytes_out=ctx.bytes_out)


def _quota_used_up(now_ms: int) -> MintokenError:
    headers = {"Retry-After": str(seconds_to_next_month(now_ms)), "x-should-retry": "false"}
    return MintokenError(Code.INSUFFICIENT_QUOTA, headers=headers)


async def _ask_with_usage(request: web.Request, turn: Turn, body: bytes) -> Answer:
    """Ask, and ask again if the provider refuses to be asked for the usage of a stream."""
    ctx, app = request[CONTEXT], request.app
    answer = await _ask(request, CHAT_PATH, body)
    if not ctx.asked_usage or answer.status != 400:
        return answer
    answer.close()
    ctx.asked_usage = False
    without = await asyncio.to_thread(body.replace, turn.usage_question, b"", 1)
    answer = await _ask(request, CHAT_PATH, without)
    if answer.status < 400:  # So it was that; anything else says nothing of it.
        app[REFUSALS].add(app[CONFIG].upstream.base_url, turn.model)
    return answer


async def _ask(request: web.Request, path: str, body: bytes | None) -> Answer:
    ctx = request[CONTEXT]
    headers = request_headers(
        request.headers, credential=PROTOCOL.credential(ctx.provider_key), request_id=ctx.id
    )
    query = without_intensity(request.rel_url.raw_query_string)
    try:
        return await request.app[UPSTREAM].send(request.method, path, query, headers, body)
    except InterruptedByShutdownError:
        ctx.outcome, ctx.status = Outcome.SHUTDOWN, Code.SERVER_SHUTTING_DOWN.status
        raise MintokenError(
            Code.SERVER_SHUTTING_DOWN, headers={"x-should-retry": "false"}
        ) from None
    except MintokenError as error:
        timed_out = error.code is Code.UPSTREAM_TIMEOUT
        ctx.outcome = Outcome.UPSTREAM_TIMEOUT if timed_out else Outcome.UPSTREAM_ERROR
        ctx.status = error.code.status
        raise
