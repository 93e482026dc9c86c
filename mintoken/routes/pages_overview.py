"""The first page: this month's quota, what was used and saved, and charts of it over time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from mintoken import statement
from mintoken.clock import DAY_MS, month_of, utc_text
from mintoken.context import ACCOUNTS, CLOCK, CONFIG, CONTEXT
from mintoken.pages import keys_of, page
from mintoken.reports import HOUR_MS, Bucket, Series, Span, SplitBy, Summary
from mintoken.routes.base import saved_by
from mintoken.savings import Status
from mintoken.usage_shown import mean

DAYS = (1, 7, 30, 90)
"""How far back the page can look: by the hour on the shortest, by whole weeks on the longest, whose
90 bars would take 150 ms to draw, else by the day."""
Values = Mapping[str, Sequence[int | None]]
"""The lines of a chart: None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Plot:
    """What a chart shows: `kind` is bars or lines, `by` splits the usage, `values` are of that."""

    title: str
    kind: str
    by: SplitBy
    values: Callable[[Sequence[Series]], Values]


def _sums(of: str, found: Sequence[Series]) -> Values:
    """One of USAGE_SUMS."""
    return {line.group or "(none)": line.sums[of] for line in found}


def _latency(found: Sequence[Series]) -> Values:
    [line] = found
    return {
        "First byte": list(map(mean, line.sums["first_byte_ms"], line.sums["first_bytes"])),
        "Whole answer": list(map(mean, line.sums["duration_ms"], line.sums["durations"])),
    }


CHARTS = {
    "requests-by-level": Plot(
        "Requests by level", "bars", SplitBy.LEVEL, partial(_sums, "requests")
    ),
    "output-by-model": Plot(
        "Output tokens by model", "bars", SplitBy.MODEL, partial(_sums, "output_tokens")
    ),
    "errors-by-level": Plot("Errors by level", "bars", SplitBy.LEVEL, partial(_sums, "errors")),
    "latency": Plot("Mean latency, ms", "lines", SplitBy.NONE, _latency),
}


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
    return await page(
        request,
        "overview.html",
        month=month,
        used=quota.used,
        limit=quota.limit,
        notice_at=app[CONFIG].quota.notice_at,
        figures=_figures(summary),
        days=days,
        choices=DAYS,
        charts=await _charts(request, days, span, bucket),
        measured=saved.output is not None,
        ratio=statement.row(saved)["ratio"],
        money=statement.row(saved)["saved"],
        progress=statement.row(saved)["status"],
        measuring=saved.status is not Status.NOT_MEASURED,
        has_keys=any(key.revoked_at is None for key in keys_of(request)),
    )


async def chart(request: web.Request) -> web.Response:
    """`GET /dashboard/charts/{name}`: a chart of the overview, as an SVG image."""
    plot, days = CHARTS.get(request.match_info["name"]), _days(request)
    if plot is None:
        raise web.HTTPNotFound
    span, bucket = _span(days, request.app[CLOCK]())
    values = plot.values(await _series(request, plot.by, span, bucket))
    drawn = await asyncio.to_thread(_drawn, plot.kind, _labels(span, bucket), values)
    return web.Response(text=drawn, content_type="image/svg+xml")


def _drawn(kind: str, labels: Sequence[str], values: Values) -> str:
    """The SVG; takes tens of milliseconds."""
    from mintoken import charts  # pygal, only for who looks at charts.

    return (charts.lines if kind == "lines" else charts.stacked_bars)(labels, values)


async def _charts(request: web.Request, days: int, span: Span, bucket: Bucket) -> list[Chart]:
    splits = {plot.by for plot in CHARTS.values()}
    found = {by: await _series(request, by, span, bucket) for by in splits}
    labels = _labels(span, bucket)
    return [
        _chart(plot, f"/dashboard/charts/{name}?days={days}", labels, plot.values(found[plot.by]))
        for name, plot in CHARTS.items()
    ]


def _chart(plot: Plot, path: str, labels: Sequence[str], values: Values) -> Chart:
    at_each = list(zip(*values.values(), strict=True)) or [()] * len(labels)
    rows = [pair for pair in zip(labels, at_each, strict=True) if any(pair[1])]
    return Chart(title=plot.title, path=path, kind=plot.kind, series=[*values], rows=rows)


async def _series(request: web.Request, by: SplitBy, span: Span, bucket: Bucket) -> list[Series]:
    store, account_id = request.app[ACCOUNTS].store, request[CONTEXT].asking.account_id
    return await store.timeseries(account_id, span, bucket=bucket, by=by)


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
    share = f"{100 * usage.errors / usage.requests:.1f} %" if usage.requests else "none"
    return [
        ("Requests", f"{usage.requests:,}", ""),
        ("Tokens in", f"{usage.input_tokens:,}", f"{usage.cached_tokens:,} from the cache"),
        ("Tokens out", f"{usage.output_tokens:,}", f"{usage.reasoning_tokens:,} of reasoning"),
        ("Errors", share, "1 request" if usage.errors == 1 else f"{usage.errors:,} requests"),
        ("First byte", _ms(found.first_byte.p50), f"p95 {_ms(found.first_byte.p95)}"),
        ("Whole answer", _ms(found.duration.p50), f"p95 {_ms(found.duration.p95)}"),
    ]


def _ms(value: int | None) -> str:
    if value is None:
        return "none"
    return f"{value} ms" if value < 1000 else f"{value / 1000:.1f} s"
