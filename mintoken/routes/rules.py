"""The rules of the member's account."""

import asyncio

from aiohttp import web

from mintoken.admin_rules import add_rule, try_text
from mintoken.context import ACCOUNTS, CONTEXT
from mintoken.errors import Code, MintokenError
from mintoken.routes.base import current, given, taken
from mintoken.shapes import RuleCreate, RuleList, RulesTried, RuleTry
from mintoken.shown import rule_shown


async def list_rules(request: web.Request) -> web.Response:
    """`GET /api/rules`."""
    account_id = request[CONTEXT].asking.account_id
    rules = (await current(request)).rules
    return given(
        RuleList(data=[rule_shown(rule) for rule in rules if rule.account_id == account_id])
    )


async def create_rule(request: web.Request) -> web.Response:
    """`POST /api/rules`."""
    asked, ctx, accounts = await taken(request, RuleCreate), request[CONTEXT], request.app[ACCOUNTS]
    rule = await add_rule(
        accounts.store,
        ctx.asking.account_id,
        asked.action,
        asked.pattern,
        priority=asked.priority,
        now_ms=ctx.started_at,
    )
    await accounts.refresh()
    return given(rule_shown(rule), status=201)


async def delete_rule(request: web.Request) -> web.Response:
    """`DELETE /api/rules/{id}`."""
    accounts, rule_id = request.app[ACCOUNTS], request.match_info["id"]
    account_id = request[CONTEXT].asking.account_id
    rules = (await current(request)).rules
    if not any(rule.id == rule_id and rule.account_id == account_id for rule in rules):
        raise MintokenError(Code.NOT_FOUND, "Your account has no rule of this id.")
    await accounts.store.remove_rule(rule_id)
    await accounts.refresh()
    return web.Response(status=204)


async def try_rules(request: web.Request) -> web.Response:
    """`POST /api/rules/try`: what a text would get, and why; nothing is sent or kept."""
    asked, account_id = await taken(request, RuleTry), request[CONTEXT].asking.account_id
    directory = await current(request)
    keys = [key.id for key in directory.keys if key.account_id == account_id]
    if asked.key_id is not None and asked.key_id not in keys:
        raise MintokenError(Code.NOT_FOUND, "Your account has no key of this id.", param="key_id")
    tried = await asyncio.to_thread(
        try_text, directory, asked.text, account_ref=account_id, key_ref=asked.key_id
    )
    return given(
        RulesTried(
            intensity=tried.decision.intensity if tried.decision else None,
            reason=tried.decision.reason if tried.decision else None,
            detected=tried.detected.reason if tried.detected else None,
            matching=[*map(rule_shown, tried.matching)],
        )
    )
