"""Which level runs, with which text, and why (contract §3)."""

from dataclasses import replace

from aiohttp import web

from mintoken.arms import NO_EXPERIMENT, Arm, Assignment, assign
from mintoken.context import ACCOUNTS, CONVERSATIONS, PROMPTS, SECRET, RequestContext
from mintoken.models import Decision, Intensity, Key, Turn, label
from mintoken.prompts import CONCISE, Wording

CONTROL = Decision(Intensity.NONE, "control")
DOES_NOT_PAY = Decision(Intensity.NONE, "does_not_pay")


def choose(app: web.Application, ctx: RequestContext, turn: Turn) -> Wording:
    """Decide, and note in `ctx` what was decided and the arm; the text that goes in.

    What the caller asks for wins, but his request stays in its arm (intention to treat).
    """
    assert ctx.owner is not None, "the route's access is KEY"
    key = ctx.owner.key
    ctx.assignment = _assignment(app, key, turn)
    ctx.decision = ctx.asked or _control(ctx.assignment) or _level(app, ctx, key, turn)
    if turn.inject_at is None and ctx.decision.intensity is not Intensity.NONE:
        ctx.decision = Decision(Intensity.NONE, "no_messages")
    if ctx.decision is CONTROL and ctx.assignment.arm is Arm.CONCISE:
        return CONCISE
    return app[PROMPTS].wording(ctx.decision.intensity)


def _assignment(app: web.Application, key: Key, turn: Turn) -> Assignment:
    if turn.inject_at is None or not (key.control or key.concise):
        return NO_EXPERIMENT
    assignment = assign(
        app[SECRET], key.experiment, turn.opening(), control=key.control, concise=key.concise
    )
    stopped = key.auto_stop and app[ACCOUNTS].is_stopped(key.experiment, label(turn.model))
    if stopped and assignment.arm is Arm.PRODUCT and not assignment.retries:
        return replace(assignment, arm=Arm.STOPPED)
    return assignment


def _control(assignment: Assignment) -> Decision | None:
    return CONTROL if assignment.arm in (Arm.CONTROL, Arm.CONCISE) else None


def _level(app: web.Application, ctx: RequestContext, key: Key, turn: Turn) -> Decision:
    """What was detected, if the key wants that; else its level."""
    detected = None
    if key.smart and turn.inject_at is not None:
        detected = app[CONVERSATIONS].decide(key.id, turn.asked())
    decision = detected or Decision(key.intensity, "key")
    if ctx.assignment.arm is Arm.STOPPED and decision.intensity is not Intensity.NONE:
        return DOES_NOT_PAY
    return decision
