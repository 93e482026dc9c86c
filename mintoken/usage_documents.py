"""Usage as JSON shows it: sums, time series and requests."""

from collections.abc import Mapping, Sequence

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


def span_document(span: Span) -> dict[str, object]:
    """The time that was really looked at: whole hours or buckets, the end exclusive."""
    return {"start": _text(span.start), "end": _text(span.end)}


def usage_document(usage: Usage) -> dict[str, object]:
    """Sums, and means in milliseconds, which are null where nothing was measured."""
    document: dict[str, object] = {name: getattr(usage, name) for name in _SUMS}
    for name, (total, count) in _MEANS.items():
        document[name] = _mean(getattr(usage, total), getattr(usage, count))
    return document


def summary_document(summary: Summary, span: Span, quota: Quota, month: str) -> dict[str, object]:
    """An account's sums and latency in a time, and where its month stands."""
    return {
        **span_document(span),
        **usage_document(summary.usage),
        "first_byte_ms": _percentiles(summary.first_byte),
        "duration_ms": _percentiles(summary.duration),
        "quota": {
            "month": month,
            "used_tokens": quota.used,
            "reserved_tokens": quota.reserved,
            "monthly_tokens": quota.limit,
        },
    }


def timeseries_document(
    series: Sequence[Series], span: Span, bucket: Bucket, by: SplitBy
) -> dict[str, object]:
    """Columns: every list has one value for each of `starts`."""
    return {
        **span_document(span),
        "bucket": bucket.value,
        "by": by.value,
        "starts": [_text(hour) for hour in range(span.start, span.end, bucket.hours)],
        "series": [{"group": line.group, **_columns(line.sums)} for line in series],
    }


def keys_document(
    used: Sequence[UsageOf], span: Span, names: Mapping[str, str], last_used: Mapping[str, int]
) -> dict[str, object]:
    """What each key used; `names` by id."""
    return {
        **span_document(span),
        "keys": [
            {
                "key_id": one.group,
                "name": names.get(one.group),
                "last_used_at": utc_text(last_used.get(one.group)),
                **usage_document(one.usage),
            }
            for one in used
        ],
    }


def models_document(used: Sequence[UsageOf], span: Span) -> dict[str, object]:
    """What each model used."""
    models = [{"model": one.group, **usage_document(one.usage)} for one in used]
    return {**span_document(span), "models": models}


def requests_document(
    rows: Sequence[UsageRow], limit: int, names: Mapping[str, str], prices: Prices
) -> dict[str, object]:
    """Up to `limit` of the rows; `next` is the id to ask by for older ones, if there are any."""
    shown = rows[:limit]
    return {
        "requests": [request_document(row, names, prices) for row in shown],
        "next": shown[-1].id if len(rows) > limit else None,
    }


def request_document(row: UsageRow, names: Mapping[str, str], prices: Prices) -> dict[str, object]:
    """One settled request, with the name of its key; `names` by id."""
    document: dict[str, object] = {name: getattr(row, name) for name in UsageRow.__slots__}
    return document | {
        "started_at": utc_text(row.started_at),
        "key_name": names.get(row.key_id),
        "cost_usd": cost(row, prices),
    }


def _columns(sums: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int | None]]:
    columns: dict[str, Sequence[int | None]] = {name: sums[name] for name in _SUMS}
    for name, (total, count) in _MEANS.items():
        columns[name] = list(map(_mean, sums[total], sums[count]))
    return columns


def _percentiles(latency: Latency) -> dict[str, int | None]:
    return {"p50": latency.p50, "p95": latency.p95, "p99": latency.p99}


def _mean(total: int, count: int) -> int | None:
    return round(total / count) if count else None


def _text(hour: int) -> str | None:
    return utc_text(hour * HOUR_MS)
