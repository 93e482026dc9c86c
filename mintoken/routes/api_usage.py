"""What the dashboard and scripts ask about usage; each member of his own account only."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from mintoken.clock import DAY_MS, month_of
from mintoken.context import ACCOUNTS, CLOCK, CONTEXT, PRICES
from mintoken.documents import stop_documents
from mintoken.errors import Code, MintokenError
from mintoken.models import Intensity, Outcome
from mintoken.reports import Bucket, RequestFilter, Span, SplitBy
from mintoken.routes.base import REQUEST_ID, given, saved_by
from mintoken.savings_shown import savings_shown
from mintoken.usage_shown import (
    LARGEST_PAGE,
    PAGE,
    by_key_shown,
    by_model_shown,
    requests_shown,
    summary_shown,
    timeseries_shown,
)

_Choice = TypeVar("_Choice", bound=StrEnum)

MOST_BUCKETS = 800
MOST_DAYS = 800
_BACK_MS = {Bucket.HOUR: 2 * DAY_MS, Bucket.DAY: 30 * DAY_MS, Bucket.WEEK: 182 * DAY_MS}
"""How far a time series goes back if nobody says."""
_LAST_YEAR = 2999


async def usage_summary(request: web.Request) -> web.Response:
    """Sums, errors and latency of a time, else of this month; and the month's quota."""
    account_id, now_ms = _account(request), request.app[CLOCK]()
    span, month = asked_span(_query(request, "start", "end"), now_ms), month_of(now_ms)
    store = request.app[ACCOUNTS].store
    summary = await store.summary(account_id, span)
    quota = await store.quota(account_id, month)
    return given(summary_shown(summary, span, quota, month))


async def usage_timeseries(request: web.Request) -> web.Response:
    """Sums by hour, day or week, together or by level or model."""
    query = _query(request, "bucket", "by", "start", "end")
    bucket = choice(query, "bucket", Bucket) or Bucket.DAY
    by = choice(query, "by", SplitBy) or SplitBy.NONE
    span = asked_span(query, request.app[CLOCK](), bucket)
    store = request.app[ACCOUNTS].store
    series = await store.timeseries(_account(request), span, bucket=bucket, by=by)
    # Thousands of numbers: not on the event loop.
    body = await asyncio.to_thread(
        lambda: msgspec.json.encode(timeseries_shown(series, span, bucket, by))
    )
    return web.Response(body=body, content_type="application/json")


async def usage_by_key(request: web.Request) -> web.Response:
    """What each key used in a time, else in this month."""
    account_id, accounts = _account(request), request.app[ACCOUNTS]
    span = asked_span(_query(request, "start", "end"), request.app[CLOCK]())
    used = await accounts.store.by_key(account_id, span)
    last_used = await accounts.store.last_used(account_id)
    names = accounts.directory.key_names(account_id)
    return given(by_key_shown(used, span, names, last_used))


async def usage_by_model(request: web.Request) -> web.Response:
    """What each model used in a time, else in this month."""
    span = asked_span(_query(request, "start", "end"), request.app[CLOCK]())
    used = await request.app[ACCOUNTS].store.by_model(_account(request), span)
    return given(by_model_shown(used, span))


async def usage_requests(request: web.Request) -> web.Response:
    """Requests that ended, the newest first; `before` takes the `next` of the page before."""
    query = _query(request, "key_id", "model", "intensity", "outcome", "limit", "before")
    limit, accounts = asked_limit(query), request.app[ACCOUNTS]
    rows = await accounts.store.requests(
        _account(request), wanted=asked_filter(query), limit=limit + 1, before=asked_id(query)
    )
    names = accounts.directory.key_names(_account(request))
    return await asyncio.to_thread(
        lambda: given(requests_shown(rows, limit, names, request.app[PRICES]))
    )


async def usage_savings(request: web.Request) -> web.Response:
    """What was saved, measured against the control arm."""
    _query(request)
    accounts, found = request.app[ACCOUNTS], await saved_by(request)
    keys = [key for key in accounts.directory.keys if key.account_id == _account(request)]
    stops = stop_documents(accounts.directory, keys)
    return given(savings_shown(found, request.app[PRICES], stops))


# --- What the query says ------------------------------------------------------------------------


def checked_query(query: MultiMapping[str], names: tuple[str, ...]) -> Mapping[str, str]:
    """The query, if it has nothing but these parameters, each once; raises MintokenError."""
    for name in query:
        if name not in names:
            use = f"Use: {', '.join(names)}." if names else "There is none."
            raise _wrong(name, f"It is not known here. {use}")
        if len(query.getall(name)) > 1:
            raise _wrong(name, "Send it once.")
    return query


def asked_span(query: Mapping[str, str], now_ms: int, bucket: Bucket | None = None) -> Span:
    """The whole buckets around `start` and `end`, or whole hours if there are none.

    It ends now if nobody says, and begins with the month or, of buckets, as _BACK_MS says. Raises
    MintokenError `invalid_parameter`.
    """
    # The hour that has begun belongs to it.
    end = _time(query, "end") if "end" in query else now_ms + 1
    if "start" in query:
        start = _time(query, "start")
    elif bucket is None:
        start = _month_start(end - 1)
    else:
        start = max(0, end - _BACK_MS[bucket])
    if start >= end:
        raise _wrong("start", "It must be before the end.")
    if end - start > MOST_DAYS * DAY_MS:
        raise _wrong("start", f"It may be {MOST_DAYS} days before the end at most.")
    span = Span.around(start, end, bucket or Bucket.HOUR)
    if bucket is not None and (span.end - span.start) // bucket.hours > MOST_BUCKETS:
        raise _wrong("bucket", f"There may be {MOST_BUCKETS} at most: take a longer one.")
    return span


def asked_filter(query: Mapping[str, str]) -> RequestFilter:
    """Which requests are wanted; what is empty is any. Raises MintokenError."""
    outcome = choice(query, "outcome", Outcome)
    if outcome is Outcome.RESERVED:
        raise _wrong("outcome", "What has not ended yet is not listed.")
    return RequestFilter(
        key_id=query.get("key_id") or None,
        model=query.get("model") or None,
        intensity=choice(query, "intensity", Intensity),
        outcome=outcome,
    )


def asked_limit(query: Mapping[str, str]) -> int:
    """How many requests a page has; raises MintokenError."""
    text = query.get("limit") or str(PAGE)
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= LARGEST_PAGE:
        raise _wrong("limit", f"Use a whole number from 1 to {LARGEST_PAGE}.")
    return int(text)


def asked_id(query: Mapping[str, str]) -> str:
    """The id of the last request that the asker has, or ""; raises MintokenError."""
    text = query.get("before", "").lower()
    if text and not REQUEST_ID.fullmatch(text):
        raise _wrong("before", "Use the `next` of a page, which is the id of a request.")
    return text


def choice(query: Mapping[str, str], name: str, kind: type[_Choice]) -> _Choice | None:
    """A parameter that names one of a few; None if it is not there or empty."""
    text = query.get(name)
    try:
        return kind(text.lower()) if text else None
    except ValueError:
        raise _wrong(name, f"Use one of: {', '.join(kind)}.") from None


def _time(query: Mapping[str, str], name: str) -> int:
    """UTC milliseconds."""
    try:
        time = datetime.fromisoformat(query[name])
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        time = None
    if time is None or not 1970 <= time.year <= _LAST_YEAR:
        raise _wrong(name, "Use ISO 8601 in UTC, as 2026-11-26 or 2026-11-26T14:00:00Z.")
    return round(time.timestamp() * 1000)


def _month_start(ms: int) -> int:
    return round(datetime.fromisoformat(f"{month_of(ms)}-01T00:00:00Z").timestamp() * 1000)


def _wrong(name: str, advice: str) -> MintokenError:
    # The name is the caller's own when it is unknown: as much of it as an error may hold.
    shown = name[:40] if name.isprintable() else "?"
    return MintokenError(Code.INVALID_PARAMETER, f"{shown}: {advice}", param=shown)


def _query(request: web.Request, *names: str) -> Mapping[str, str]:
    return checked_query(request.rel_url.query, names)


def _account(request: web.Request) -> str:
    return request[CONTEXT].asking.account_id
