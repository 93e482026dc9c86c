"""The only module that knows all the pieces: one aiohttp application out of a config."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mintoken import pages
from mintoken.accounts import Accounts
from mintoken.admin import secret_for
from mintoken.clock import utc_ms
from mintoken.config import Config
from mintoken.context import (
    ACCESS,
    ACCOUNTS,
    CLOCK,
    CONFIG,
    CONVERSATIONS,
    FEED,
    LEDGER,
    OPENAPI,
    PASSWORDS,
    PRICES,
    PROMPTS,
    RATES,
    REFUSALS,
    SECRET,
    STATE,
    TOKENIZER,
    UPSTREAM,
    Access,
    Clock,
    ServerState,
)
from mintoken.conversations import Conversations
from mintoken.detect import load_detector
from mintoken.errors import DiskError, TokenizerError
from mintoken.feed import Feed
from mintoken.ledger import Ledger
from mintoken.logs import frames
from mintoken.middlewares.auth import auth
from mintoken.middlewares.context import context
from mintoken.middlewares.errors import errors
from mintoken.middlewares.quota import quota
from mintoken.middlewares.shield import shield
from mintoken.middlewares.timing import stamp
from mintoken.passwords import PasswordThread
from mintoken.pricing import load_prices
from mintoken.prompts import load_prompts
from mintoken.rates import RateLimiter
from mintoken.refusals import Refusals
from mintoken.routes.accounts import (
    change_account,
    create_member,
    list_members,
    remove_member,
    show_account,
)
from mintoken.routes.api_usage import (
    usage_by_key,
    usage_by_model,
    usage_requests,
    usage_savings,
    usage_summary,
    usage_timeseries,
)
from mintoken.routes.body import expect
from mintoken.routes.dashboard import DASHBOARD
from mintoken.routes.events import events
from mintoken.routes.health import healthz, readyz
from mintoken.routes.keys import change_key, create_key, list_keys, revoke_key, rotate_key
from mintoken.routes.openapi import document, openapi
from mintoken.routes.proxy import chat, models, playground
from mintoken.routes.rules import create_rule, delete_rule, list_rules, try_rules
from mintoken.routes.session import change_password, login, logout, who
from mintoken.stopping import keep_reviewed
from mintoken.stores.sqlite import open_sqlite
from mintoken.tokens import Tokenizer
from mintoken.upstream import Upstream

ROUTES: tuple[tuple[str, str, Handler, Access], ...] = (
    ("POST", "/v1/chat/completions", chat, Access.KEY),
    ("GET", "/v1/models", models, Access.KEY),
    ("GET", "/v1/models/{id}", models, Access.KEY),
    ("GET", "/healthz", healthz, Access.OPEN),
    ("GET", "/readyz", readyz, Access.OPEN),
    ("POST", "/api/login", login, Access.SIGN_IN),
    ("POST", "/api/logout", logout, Access.SIGN_IN),
    ("GET", "/api/openapi.json", openapi, Access.SIGN_IN),
    ("GET", "/api/me", who, Access.VIEWER),
    ("POST", "/api/me/password", change_password, Access.VIEWER),
    ("GET", "/api/account", show_account, Access.VIEWER),
    ("PATCH", "/api/account", change_account, Access.OWNER),
    ("GET", "/api/members", list_members, Access.OWNER),
    ("POST", "/api/members", create_member, Access.OWNER),
    ("DELETE", "/api/members/{id}", remove_member, Access.OWNER),
    ("GET", "/api/keys", list_keys, Access.VIEWER),
    ("POST", "/api/keys", create_key, Access.ADMIN),
    ("PATCH", "/api/keys/{id}", change_key, Access.ADMIN),
    ("POST", "/api/keys/{id}/rotate", rotate_key, Access.ADMIN),
    ("POST", "/api/keys/{id}/revoke", revoke_key, Access.ADMIN),
    ("POST", "/api/keys/{id}/playground", playground, Access.AS_KEY),
    ("GET", "/api/rules", list_rules, Access.VIEWER),
    ("POST", "/api/rules", create_rule, Access.ADMIN),
    ("POST", "/api/rules/try", try_rules, Access.VIEWER),
    ("DELETE", "/api/rules/{id}", delete_rule, Access.ADMIN),
    ("GET", "/api/usage/summary", usage_summary, Access.VIEWER),
    ("GET", "/api/usage/timeseries", usage_timeseries, Access.VIEWER),
    ("GET", "/api/usage/by-key", usage_by_key, Access.VIEWER),
    ("GET", "/api/usage/by-model", usage_by_model, Access.VIEWER),
    ("GET", "/api/requests", usage_requests, Access.VIEWER),
    ("GET", "/api/savings", usage_savings, Access.VIEWER),
    ("GET", "/api/events", events, Access.VIEWER),
    *DASHBOARD,
)


def build_app(config: Config, rates: RateLimiter, *, clock: Clock = utc_ms) -> web.Application:
    """The application: it opens the store and everything else when its runner is set up."""
    app = web.Application(middlewares=(context, errors, auth, quota))
    app[CONFIG] = config
    app[CLOCK] = clock
    app[STATE] = ServerState()
    app[RATES] = rates
    app[REFUSALS] = Refusals()
    app[PROMPTS] = load_prompts()
    marks: dict[object, Access] = {handler: access for _, _, handler, access in ROUTES}
    app[ACCESS] = marks
    for method, path, handler, _ in ROUTES:
        app.router.add_route(method, path, handler, expect_handler=expect)
    pages.set_up(app)
    app[OPENAPI] = document((method, path, access) for method, path, _, access in ROUTES)
    app.on_response_prepare.extend((stamp, shield))
    # Born in this order, and gone in the reverse one: the last count is settled before the ledger
    # closes, and the last settlement is committed before the store does.
    app.cleanup_ctx.extend((_accounts_and_ledger, _passwords, _stopping, _tokenizer, _upstream))
    return app


async def _accounts_and_ledger(app: web.Application) -> AsyncIterator[None]:
    config = app[CONFIG]
    store = await open_sqlite(config.storage.data_dir, clock_ms=app[CLOCK])
    try:
        accounts = app[ACCOUNTS] = Accounts(store)
        await accounts.refresh()
        app[SECRET] = secret_for(accounts.directory, config.storage.data_dir)
        app[CONVERSATIONS] = Conversations(await asyncio.to_thread(load_detector), app[SECRET])
        app[FEED] = Feed(store)
        ledger = app[LEDGER] = Ledger(store, counts=config.quota.counts)
        with suppress(DiskError):  # It serves with 503 until the ledger finds that it has passed.
            await ledger.recover()
        refreshing = _task(accounts.keep_fresh(), "accounts")
        committing = _task(ledger.run(), "ledger")
        yield
        refreshing.cancel()
        ledger.close()
        await asyncio.gather(refreshing, committing, return_exceptions=True)
    finally:
        await store.close()


async def _passwords(app: web.Application) -> AsyncIterator[None]:
    passwords = app[PASSWORDS] = PasswordThread()
    yield
    await asyncio.to_thread(passwords.close)


async def _stopping(app: web.Application) -> AsyncIterator[None]:
    config, accounts = app[CONFIG], app[ACCOUNTS]
    # Each worker in its turn: what one finds, the others see.
    every_s = config.savings.review_every * config.server.workers
    prices = app[PRICES] = load_prices(config.savings.prices)
    work = keep_reviewed(
        accounts.store, prices, lambda: accounts.directory, clock_ms=utc_ms, every_s=every_s
    )
    reviewing = _task(work, "stopping")
    yield
    reviewing.cancel()
    await asyncio.gather(reviewing, return_exceptions=True)


async def _tokenizer(app: web.Application) -> AsyncIterator[None]:
    tokenizer = app[TOKENIZER] = Tokenizer(app[CONFIG].tiktoken_cache_dir)
    try:
        await asyncio.to_thread(tokenizer.load)
    except TokenizerError as error:
        structlog.get_logger().error("tokenizer_unavailable", error=str(error))
    yield
    await asyncio.to_thread(tokenizer.close)
    await asyncio.sleep(0)  # The last counts reach the ledger through the loop.


async def _upstream(app: web.Application) -> AsyncIterator[None]:
    options = app[CONFIG].upstream
    upstream = app[UPSTREAM] = Upstream(
        options.base_url,
        connect_timeout=options.connect_timeout,
        first_byte_timeout=options.first_byte_timeout,
    )
    yield
    await upstream.close()


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_say_why)
    return task


def _say_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        structlog.get_logger().critical("task_died", task=task.get_name(), error=frames(error))
