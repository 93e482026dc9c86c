"""Which level runs, with which text, and why (contract §3)."""

from dataclasses import replace

from aiohttp import web

from mintoken.arms import NO_EXPERIMENT, Arm, Assignment, assign
from mintoken.context import ACCOUNTS, CONVERSATIONS, PROMPTS, SECRET, RequestContext
from mintoken.exchange import Turn
from mintoken.models import Decision, Intensity, Key, label
from mintoken.prompts import CONCISE, Wording

CONTROL = Decision(Intensity.NONE, "control")
DOES_NOT_PAY = Decision(Intensity.NONE, "does_not_pay")


def choose(app: web.Application, ctx: RequestContext, turn: Turn) -> Wording:
    """Decide, and note in `ctx` what was decided and the arm; the text that goes in.

    What the caller asks for wins, but his request stays in its arm (intention to treat).
    """
    key = ctx.key
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
    directory, model, arm = app[ACCOUNTS].directory, label(turn.model), assignment.arm
    stopped = key.is_watched and directory.verdict(key, model).stopped
    if stopped and arm is Arm.PRODUCT and not assignment.retries:
        arm = Arm.STOPPED
    return replace(assignment, arm=arm, epoch=directory.epoch(key, model))


def _control(assignment: Assignment) -> Decision | None:
    return CONTROL if assignment.arm in (Arm.CONTROL, Arm.CONCISE) else None


def _level(app: web.Application, ctx: RequestContext, key: Key, turn: Turn) -> Decision:
    """What the account's rules say, else what is detected if the key wants it, else its level."""
    found, rules = None, app[ACCOUNTS].rules(key.account_id)
    if turn.inject_at is not None and (rules or key.smart):
        asked = turn.asked()
        found = rules.decide(asked.last) if rules else None
        if found is None and key.smart:
            found = app[CONVERSATIONS].decide(key.id, asked)
    decision = found or Decision(key.intensity, "key")
    if ctx.assignment.arm is Arm.STOPPED and decision.intensity is not Intensity.NONE:
        return DOES_NOT_PAY
    return decision


def is_quick(app: web.Application, ctx: RequestContext) -> bool:
    """Do the account's rules take no time worth a thread, whatever this request says?"""
    rules = app[ACCOUNTS].rules(ctx.key.account_id)
    return rules is None or ctx.asked is not None or rules.is_quick(ctx.buffered_bytes)
