"""The first page: this month's quota, what was used and saved, and charts of it over time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from mintoken import statement
from mintoken.clock import DAY_MS, month_of, utc_text
from mintoken.context import ACCOUNTS, CLOCK, CONFIG, CONTEXT
from mintoken.pages import keys_of, page
from mintoken.reports import HOUR_MS, Bucket, Span, SplitBy, Summary
from mintoken.routes.base import saved_by
from mintoken.savings import Status
from mintoken.usage_shown import mean

DAYS = (1, 7, 30, 90)
"""How far back the page can look: by the hour on the shortest, by whole weeks on the longest, whose
90 bars would take 150 ms to draw, else by the day."""
CHARTS = {
    "requests-by-level": ("Requests by level", SplitBy.LEVEL),
    "output-by-model": ("Output tokens by model", SplitBy.MODEL),
    "latency": ("Mean latency, ms", SplitBy.NONE),
}
Values = Mapping[str, Sequence[int | None]]
"""The lines of a chart: None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and the same figures as a table."""

    title: str
    path: str
    kind: str
    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int | None]]]


async def overview(request: web.Request) -> web.Response:
    """`GET /dashboard`, with `?days=7` for one of DAYS."""
    app, account_id, days = request.app, request[CONTEXT].asking.account_id, _days(request)
    store, now_ms = app[ACCOUNTS].store, app[CLOCK]()
    month = month_of(now_ms)
    quota = await store.quota(account_id, month)
    span, bucket = _span(days, now_ms)
    summary = await store.summary(account_id, span)
    saved = (await saved_by(request)).total
    return page(
        request,
        "overview.html",
        month=month,
        used=quota.used,
        limit=quota.limit,
        notice_at=app[CONFIG].quota.notice_at,
        figures=_figures(summary),
        days=days,
        choices=DAYS,
        charts=[await _chart(request, name, days, span, bucket) for name in CHARTS],
        measured=saved.output is not None,
        ratio=statement.row(saved)["ratio"],
        money=statement.row(saved)["saved"],
        progress=statement.row(saved)["status"],
        measuring=saved.status is not Status.NOT_MEASURED,
        has_keys=any(key.revoked_at is None for key in keys_of(request)),
    )


async def chart(request: web.Request) -> web.Response:
    """`GET /dashboard/charts/{name}`: a chart of the overview, as an SVG image."""
    name, days = request.match_info["name"], _days(request)
    if name not in CHARTS:
        raise web.HTTPNotFound
    span, bucket = _span(days, request.app[CLOCK]())
    values = await _values(request, name, span, bucket)
    drawn = await asyncio.to_thread(_drawn, name, _labels(span, bucket), values)
    return web.Response(text=drawn, content_type="image/svg+xml")


def _drawn(name: str, labels: Sequence[str], values: Values) -> str:
    """The SVG; takes tens of milliseconds."""
    from mintoken import charts  # pygal, only for who looks at charts.

    return (charts.lines if name == "latency" else charts.stacked_bars)(labels, values)


async def _chart(request: web.Request, name: str, days: int, span: Span, bucket: Bucket) -> Chart:
    values = await _values(request, name, span, bucket)
    at_each = list(zip(*values.values(), strict=True)) or [()] * len(_labels(span, bucket))
    return Chart(
        title=CHARTS[name][0],
        path=f"/dashboard/charts/{name}?days={days}",
        kind="lines" if name == "latency" else "bars",
        series=[*values],
        rows=[pair for pair in zip(_labels(span, bucket), at_each, strict=True) if any(pair[1])],
    )


async def _values(request: web.Request, name: str, span: Span, bucket: Bucket) -> Values:
    store, account_id = request.app[ACCOUNTS].store, request[CONTEXT].asking.account_id
    found = await store.timeseries(account_id, span, bucket=bucket, by=CHARTS[name][1])
    if name == "latency":
        return {
            label: list(map(mean, line.sums[total], line.sums[count]))
            for line in found
            for label, total, count in (
                ("First byte", "first_byte_ms", "first_bytes"),
                ("Whole answer", "duration_ms", "durations"),
            )
        }
    measure = "requests" if name == "requests-by-level" else "output_tokens"
    return {line.group or "(none)": line.sums[measure] for line in found}


def _labels(span: Span, bucket: Bucket) -> list[str]:
    """When each bucket begins: the hour of a day, or the day of a month."""
    texts = [utc_text(hour * HOUR_MS) or "" for hour in range(span.start, span.end, bucket.hours)]
    return [text[11:16] if bucket is Bucket.HOUR else text[5:10] for text in texts]


def _days(request: web.Request) -> int:
    text = request.query.get("days", "30")
    return int(text) if text in map(str, DAYS) else 30


def _span(days: int, now_ms: int) -> tuple[Span, Bucket]:
    bucket = {DAYS[0]: Bucket.HOUR, DAYS[-1]: Bucket.WEEK}.get(days, Bucket.DAY)
    return Span.around(now_ms - days * DAY_MS + bucket.hours * HOUR_MS, now_ms + 1, bucket), bucket


def _figures(found: Summary) -> list[tuple[str, str, str]]:
    """Each with its name, the figure, and what explains it."""
    usage = found.usage
    share = f"{usage.errors / usage.requests:.1%}" if usage.requests else "none"
    return [
        ("Requests", f"{usage.requests:,}", ""),
        ("Tokens in", f"{usage.input_tokens:,}", f"{usage.cached_tokens:,} from the cache"),
        ("Tokens out", f"{usage.output_tokens:,}", f"{usage.reasoning_tokens:,} of reasoning"),
        ("Errors", share, f"{usage.errors:,} requests"),
        ("First byte", _ms(found.first_byte.p50), f"p95 {_ms(found.first_byte.p95)}"),
        ("Whole answer", _ms(found.duration.p50), f"p95 {_ms(found.duration.p95)}"),
    ]


def _ms(value: int | None) -> str:
    if value is None:
        return "none"
    return f"{value} ms" if value < 1000 else f"{value / 1000:.1f} s"
