"""The pages of requests: a table that grows by itself, and one request in detail, never content."""

from collections.abc import Mapping
from dataclasses import asdict
from urllib.parse import urlencode

from aiohttp import web

from mintoken.clock import DAY_MS, utc_text
from mintoken.context import ACCOUNTS, CLOCK, CONTEXT, PRICES
from mintoken.models import Intensity, Outcome
from mintoken.pages import keys_of, page
from mintoken.pricing import cost
from mintoken.reports import RequestFilter, Span, UsageRow
from mintoken.routes.base import REQUEST_ID

ON_A_PAGE = 50
MODELS_SINCE_DAYS = 90
"""The models that can be asked for are those used since then."""
COLUMNS = ("Time (UTC)", "Key", "Model", "Level", "Outcome", "In", "Out", "ms")
NUMBERS = COLUMNS[-3:]
LABELS = {
    "key_id": "Key's id", "id": "Request", "started_at": "Time (UTC)", "month": "Month",
    "model": "Model asked for", "model_served": "Model that answered", "intensity": "Level",
    "reason": "Reason", "arm": "Arm", "prompt_version": "Text", "input_tokens": "Tokens in",
    "cached_tokens": "of these cached", "output_tokens": "Tokens out",
    "reasoning_tokens": "of these reasoning", "injected_tokens": "Injected tokens",
    "charged_tokens": "Charged tokens", "counted_by": "Counted by", "status": "Status",
    "outcome": "Outcome", "finish_reason": "Finish reason", "first_byte_ms": "First byte, ms",
    "duration_ms": "Duration, ms", "bytes_in": "Bytes in", "bytes_out": "Bytes out",
    "upstream_request_id": "The provider's id", "protocol": "Protocol", "stream": "Streamed",
}  # fmt: skip


async def list_requests(request: web.Request) -> web.Response:
    """`GET /dashboard/requests`, filtered by `key_id`, `model`, `intensity` and `outcome`."""
    store, account_id = request.app[ACCOUNTS].store, request[CONTEXT].asking.account_id
    names = {key.id: key.name for key in keys_of(request)}
    now_ms = request.app[CLOCK]()
    models = await store.by_model(
        account_id, Span.around(now_ms - MODELS_SINCE_DAYS * DAY_MS, now_ms + 1)
    )
    asked, before = _asked(request), _before(request)
    place = await store.newest_place()  # Before the rows: what ends between the two comes live.
    rows = await store.requests(account_id, wanted=_filter(asked), limit=ON_A_PAGE, before=before)
    return await page(
        request,
        "requests.html",
        rows=[_shown(row, names) for row in rows],
        columns=COLUMNS,
        numbers=NUMBERS,
        filters=[
            ("key_id", "Key", list(names.items())),
            ("model", "Model", [(one.group, one.group) for one in models]),
            *(
                (name, label, [(one, one) for one in values])
                for name, (label, values) in _CLOSED.items()
            ),
        ],
        asked=asked,
        place=place,
        older=_older(asked, rows),
        kept=_query({**asked, "before": before}),
        newest=not before,
        first=_query(asked),
    )


async def show(request: web.Request) -> web.Response:
    """`GET /dashboard/requests/{id}`."""
    store, account_id = request.app[ACCOUNTS].store, request[CONTEXT].asking.account_id
    id_ = request.match_info["id"]
    # Ids sort by their text, so the first one before the text that follows is this or an older one.
    rows = await store.requests(account_id, wanted=RequestFilter(), limit=1, before=f"{id_}\x00")
    if not rows or rows[0].id != id_:
        raise web.HTTPNotFound
    row = {name: _text(value) for name, value in asdict(rows[0]).items()}
    row |= {"started_at": _time(rows[0]), "status": str(rows[0].status)}
    names = {key.id: key.name for key in keys_of(request)}
    fields = [("Key", names.get(rows[0].key_id, rows[0].key_id))]
    fields += [(label, row[name]) for name, label in LABELS.items() if row[name]]
    price = cost(rows[0], request.app[PRICES])
    fields.append(("Price", "none is known" if price is None else f"${price:.3g}"))
    kept = _query({**_asked(request), "before": _before(request)})
    return await page(request, "request.html", fields=fields, kept=kept)


def _text(value: object) -> str:
    """A value as people read it; empty if there is none."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _time(row: UsageRow) -> str:
    return (utc_text(row.started_at) or "")[:19].replace("T", " ")


_CLOSED: Mapping[str, tuple[str, list[str]]] = {
    "intensity": ("Level", [level.value for level in Intensity]),
    "outcome": ("Outcome", [one.value for one in Outcome if one.value != "reserved"]),
}


def _filter(asked: Mapping[str, str]) -> RequestFilter:
    """What is asked for; what there cannot be is passed over."""
    intensity, outcome = asked["intensity"], asked["outcome"]
    return RequestFilter(
        key_id=asked["key_id"] or None,
        model=asked["model"] or None,
        intensity=Intensity(intensity) if intensity in _CLOSED["intensity"][1] else None,
        outcome=Outcome(outcome) if outcome in _CLOSED["outcome"][1] else None,
    )


def _asked(request: web.Request) -> dict[str, str]:
    """What each filter says; empty where it asks for all."""
    return {name: request.query.get(name, "") for name in ("key_id", "model", *_CLOSED)}


def _before(request: web.Request) -> str:
    """The id that only older requests are asked for; empty if it is none."""
    text = request.query.get("before", "")
    return text if REQUEST_ID.fullmatch(text) else ""


def _query(asked: Mapping[str, str]) -> str:
    kept = urlencode({name: value for name, value in asked.items() if value})
    return f"?{kept}" if kept else ""


def _older(asked: Mapping[str, str], rows: list[UsageRow]) -> str:
    if len(rows) < ON_A_PAGE:
        return ""
    return "/dashboard/requests" + _query({**asked, "before": rows[-1].id})


def _shown(row: UsageRow, names: Mapping[str, str]) -> dict[str, object]:
    return {
        "id": row.id,
        "started_at": _time(row),
        "key": names.get(row.key_id, row.key_id),
        "model": row.model,
        "intensity": row.intensity,
        "outcome": row.outcome,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "duration_ms": row.duration_ms or 0,
    }
