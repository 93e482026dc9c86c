"""Usage as JSON shows it: sums, time series and requests; the shapes also describe it."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

from msgspec import Meta, Struct, defstruct

from mintoken.clock import utc_text
from mintoken.pricing import Prices, cost
from mintoken.reports import (
    HOUR_MS,
    Bucket,
    Latency,
    Quota,
    Series,
    Span,
    SplitBy,
    Summary,
    Usage,
    UsageOf,
    UsageRow,
)

PAGE = 50
LARGEST_PAGE = 200
"""Requests of a list: what it has if nobody says, and at most."""
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

_SUMS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "injected_tokens",
    "charged_tokens",
)
_MEANS = {
    "mean_first_byte_ms": ("first_byte_ms", "first_bytes"),
    "mean_duration_ms": ("duration_ms", "durations"),
}


class UsageShown(Struct, frozen=True, kw_only=True):
    """Sums, and means in milliseconds, which are null where nothing was measured."""

    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    injected_tokens: int
    charged_tokens: int
    mean_first_byte_ms: int | None
    mean_duration_ms: int | None


class Percentiles(Struct, frozen=True, kw_only=True):
    """In milliseconds; null where nothing was measured."""

    p50: int | None
    p95: int | None
    p99: int | None


class QuotaShown(Struct, frozen=True, kw_only=True):
    """Where the account stands in a month."""

    month: str
    used_tokens: int
    reserved_tokens: int
    monthly_tokens: Annotated[int, Meta(description="0 is no limit.")]


class SummaryShown(UsageShown, frozen=True, kw_only=True):
    """An account's sums and latency in a time, which are whole hours, and this month's quota."""

    start: Time
    end: Time
    first_byte_ms: Percentiles
    duration_ms: Percentiles
    quota: QuotaShown


class SeriesShown(Struct, frozen=True, kw_only=True):
    """One line of a time series: every list has one value for each of its `starts`."""

    group: str
    requests: Sequence[int]
    errors: Sequence[int]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]
    cached_tokens: Sequence[int]
    reasoning_tokens: Sequence[int]
    injected_tokens: Sequence[int]
    charged_tokens: Sequence[int]
    mean_first_byte_ms: Sequence[int | None]
    mean_duration_ms: Sequence[int | None]


class TimeseriesShown(Struct, frozen=True, kw_only=True):
    """Sums over time."""

    start: Time
    end: Time
    bucket: Bucket
    by: SplitBy
    starts: Sequence[Time]
    series: Sequence[SeriesShown]


class KeyUsed(UsageShown, frozen=True, kw_only=True):
    """What one key used."""

    key_id: str
    name: str | None
    last_used_at: Time | None


class UsageByKey(Struct, frozen=True, kw_only=True):
    """What each key used."""

    start: Time
    end: Time
    keys: Sequence[KeyUsed]


class ModelUsed(UsageShown, frozen=True, kw_only=True):
    """What one model used."""

    model: str


class UsageByModel(Struct, frozen=True, kw_only=True):
    """What each model used."""

    start: Time
    end: Time
    models: Sequence[ModelUsed]


RequestShown = defstruct(
    "RequestShown",
    [
        *((one.name, Time if one.name == "started_at" else one.type) for one in fields(UsageRow)),
        ("key_name", str | None),
        ("cost_usd", Annotated[float | None, Meta(description="Null: the model has no price.")]),
    ],
    frozen=True,
    kw_only=True,
    namespace={"__doc__": "One settled request (contract §6), the name of its key, and its cost."},
)


class RequestPage(Struct, frozen=True, kw_only=True):
    """Requests, and the id to ask by for older ones, if there are any."""

    requests: Sequence[RequestShown]  # type: ignore[valid-type]
    next: str | None


def summary_shown(summary: Summary, span: Span, quota: Quota, month: str) -> SummaryShown:
    """What was used in a time, and where the month stands."""
    return SummaryShown(
        **_span(span),
        **_used(summary.usage),
        first_byte_ms=_percentiles(summary.first_byte),
        duration_ms=_percentiles(summary.duration),
        quota=QuotaShown(
            month=month,
            used_tokens=quota.used,
            reserved_tokens=quota.reserved,
            monthly_tokens=quota.limit,
        ),
    )


def timeseries_shown(
    series: Sequence[Series], span: Span, bucket: Bucket, by: SplitBy
) -> TimeseriesShown:
    """Lines over time."""
    return TimeseriesShown(
        **_span(span),
        bucket=bucket,
        by=by,
        starts=[_text(hour) for hour in range(span.start, span.end, bucket.hours)],
        series=[SeriesShown(group=line.group, **_columns(line.sums)) for line in series],
    )


def by_key_shown(
    used: Sequence[UsageOf], span: Span, names: Mapping[str, str], last_used: Mapping[str, int]
) -> UsageByKey:
    """What each key used; `names` by id, `last_used` in UTC milliseconds."""
    keys = [
        KeyUsed(
            key_id=one.group,
            name=names.get(one.group),
            last_used_at=utc_text(last_used.get(one.group)),
            **_used(one.usage),
        )
        for one in used
    ]
    return UsageByKey(**_span(span), keys=keys)


def by_model_shown(used: Sequence[UsageOf], span: Span) -> UsageByModel:
    """What each model used."""
    models = [ModelUsed(model=one.group, **_used(one.usage)) for one in used]
    return UsageByModel(**_span(span), models=models)


def requests_shown(
    rows: Sequence[UsageRow], limit: int, names: Mapping[str, str], prices: Prices
) -> RequestPage:
    """Up to `limit` of the rows; whether there are more is seen by one more row."""
    shown = [request_shown(row, names, prices) for row in rows[:limit]]
    return RequestPage(requests=shown, next=rows[limit - 1].id if len(rows) > limit else None)


def request_shown(row: UsageRow, names: Mapping[str, str], prices: Prices) -> Struct:
    """One request; `names` of keys by id."""
    told: dict[str, Any] = {name: getattr(row, name) for name in UsageRow.__slots__}
    told["started_at"] = utc_text(row.started_at)
    return RequestShown(**told, key_name=names.get(row.key_id), cost_usd=cost(row, prices))


def _span(span: Span) -> dict[str, Any]:
    """The time that was really looked at: whole hours or buckets, the end exclusive."""
    return {"start": _text(span.start), "end": _text(span.end)}


def _used(usage: Usage) -> dict[str, Any]:
    told = {name: getattr(usage, name) for name in _SUMS}
    means = {
        name: mean(getattr(usage, total), getattr(usage, count))
        for name, (total, count) in _MEANS.items()
    }
    return told | means


def _columns(sums: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    means = {
        name: list(map(mean, sums[total], sums[count])) for name, (total, count) in _MEANS.items()
    }
    return {name: sums[name] for name in _SUMS} | means


def _percentiles(latency: Latency) -> Percentiles:
    return Percentiles(p50=latency.p50, p95=latency.p95, p99=latency.p99)


def mean(total: int, count: int) -> int | None:
    """Of so many, rounded; None of none."""
    return round(total / count) if count else None


def _text(hour: int) -> str:
    return utc_text(hour * HOUR_MS) or ""
