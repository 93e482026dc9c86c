"""The page of custom rules: list, add, remove, and try a text."""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from mintoken import admin, admin_rules
from mintoken.context import ACCOUNTS, CLOCK, CONTEXT
from mintoken.models import Decision, RuleAction
from mintoken.pages import account_of, back_to, page
from mintoken.routes.base import form_of
from mintoken.routes.rules import delete_rule
from mintoken.shapes import TRIED_CHARACTERS

BLANK = {"pattern": "", "action": RuleAction.NEVER_COMPRESS.value, "priority": "0", "text": ""}


async def list_rules(request: web.Request) -> web.Response:
    """`GET /dashboard/rules`."""
    return await _page(request)


async def add(request: web.Request) -> web.Response:
    """`POST /dashboard/rules`."""
    app, form = request.app, await form_of(request)
    try:
        await admin_rules.add_rule(
            app[ACCOUNTS].store,
            account_of(request).id,
            _action(form.get("action", "")),
            form.get("pattern", ""),
            priority=_priority(form.get("priority", "")),
            now_ms=app[CLOCK](),
        )
    except admin.RefusedError as error:
        return await _page(request, given=form, problem=str(error), status=400)
    await app[ACCOUNTS].refresh()
    return back_to("/dashboard/rules")


async def remove(request: web.Request) -> web.Response:
    """`POST /dashboard/rules/{id}/remove`."""
    await delete_rule(request)
    return back_to("/dashboard/rules")


async def try_text(request: web.Request) -> web.Response:
    """`POST /dashboard/rules/try`: what a text would get with smart detection, and why."""
    form = await form_of(request)
    text = form.get("text", "")
    if len(text) > TRIED_CHARACTERS:
        return await _page(
            request, problem=f"A text has {TRIED_CHARACTERS:,} characters at most.", status=400
        )
    directory, account_id = request.app[ACCOUNTS].directory, request[CONTEXT].asking.account_id
    tried = await asyncio.to_thread(
        admin_rules.try_text, directory, text, account_ref=account_id, key_ref=None
    )
    decision = tried.decision or tried.detected
    told = _told(decision) if decision else {"reason": ""}
    return await _page(request, given=form, tried=told)


def _told(decision: Decision) -> dict[str, str]:
    return {"intensity": decision.intensity.value, "reason": decision.reason}


def _action(text: str) -> RuleAction:
    try:
        return RuleAction(text)
    except ValueError:
        raise admin.RefusedError(f"action is one of {', '.join(RuleAction)}.") from None


def _priority(text: str) -> int:
    try:
        return int(text or "0")
    except ValueError:
        raise admin.RefusedError("priority is a whole number.") from None


def _is_own(request: web.Request, account_id: str) -> bool:
    return account_id == request[CONTEXT].asking.account_id


async def _page(
    request: web.Request,
    *,
    given: Mapping[str, str] = BLANK,
    tried: Mapping[str, str] | None = None,
    problem: str = "",
    status: int = 200,
) -> web.Response:
    directory = request.app[ACCOUNTS].directory
    return await page(
        request,
        "rules.html",
        rules=[
            admin_rules.rule_document(rule, directory)
            for rule in directory.rules
            if _is_own(request, rule.account_id)
        ],
        actions=[action.value for action in RuleAction],
        given=BLANK | dict(given),
        tried=tried,
        problem=problem,
        status=status,
    )
