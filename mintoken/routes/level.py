"""Which level runs, and why (contract §3)."""

from aiohttp import web

from mintoken.context import CONVERSATIONS, RequestContext
from mintoken.models import Decision, Intensity, Key, Turn


def decide(app: web.Application, ctx: RequestContext, turn: Turn) -> Decision:
    """What the caller asked for; else what was detected, if his key wants that; else its level."""
    assert ctx.owner is not None, "the route's access is KEY"
    key = ctx.owner.key
    if turn.inject_at is None:
        return _impossible(ctx.asked or Decision(key.intensity, "key"))
    return ctx.asked or _detected(app, key, turn) or Decision(key.intensity, "key")


def _impossible(decision: Decision) -> Decision:
    if decision.intensity is Intensity.NONE:
        return decision
    return Decision(Intensity.NONE, "no_messages")


def _detected(app: web.Application, key: Key, turn: Turn) -> Decision | None:
    return app[CONVERSATIONS].decide(key.id, turn.asked()) if key.smart else None
