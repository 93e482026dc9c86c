"""The key's rate, and the promise that whatever is reserved of the month is settled."""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mintoken.context import (
    CONFIG,
    CONTEXT,
    LEDGER,
    RATES,
    TOKENIZER,
    RequestContext,
)
from mintoken.exchange import Spoken
from mintoken.models import Outcome, Reservation, Settlement, TokenUsage, label

LOG = structlog.get_logger()


@web.middleware
async def quota(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Hold the key's limits while the handler runs; settle what it reserved, whatever happened."""
    ctx = request[CONTEXT]
    if ctx.owner is None:
        return await handler(request)
    app = request.app
    entered = app[RATES].enter(ctx.owner.key)
    try:
        return await handler(request)
    finally:
        app[RATES].leave(entered)
        if ctx.reservation is not None:
            settle(app, ctx, ctx.reservation)


def settle(app: web.Application, ctx: RequestContext, reservation: Reservation) -> None:
    """Drop the settlement into the ledger's queue, once the tokens are counted. Never waits."""
    spoken, duration_ms = ctx.spoken(), ctx.elapsed_ms()
    outcome = final_outcome(ctx.outcome, spoken)

    def record(usage: TokenUsage) -> None:
        settlement = Settlement(
            id=reservation.id,
            outcome=outcome,
            status=ctx.status,
            model_served=label(spoken.model),
            finish_reason=label(spoken.finish_reason),
            upstream_request_id=label(ctx.upstream_request_id),
            tokens=usage,
            charged_tokens=usage.charged(app[CONFIG].quota.counts),
            first_byte_ms=ctx.first_byte_ms,
            duration_ms=duration_ms,
            bytes_out=ctx.bytes_out,
        )
        app[LEDGER].settle(settlement)
        _log(ctx, reservation, settlement)

    if ctx.usage is not None or ctx.meter is None or ctx.prompt is None:
        record(ctx.usage or TokenUsage())
    else:
        app[TOKENIZER].measure_soon(
            spoken,
            ctx.prompt,
            reservation.model,
            record,
            prompt_bytes=reservation.bytes_in,
        )


def final_outcome(outcome: Outcome, spoken: Spoken) -> Outcome:
    """The outcome by the protocol's own state: who left after the end of the answer got it all."""
    if outcome is Outcome.CLIENT_CLOSED and spoken.done:
        return Outcome.OK
    return outcome


def _log(ctx: RequestContext, reservation: Reservation, settlement: Settlement) -> None:
    LOG.info(
        "request",
        id=reservation.id,
        key=reservation.key_id,
        status=settlement.status,
        code=ctx.error.code if ctx.error else None,
        ms=settlement.duration_ms,
        model=reservation.model,
        intensity=reservation.intensity.value,
        input_tokens=settlement.tokens.input,
        output_tokens=settlement.tokens.output,
        outcome=settlement.outcome.value,
    )
