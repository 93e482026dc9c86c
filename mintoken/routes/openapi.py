"""The description of the control plane, in OpenAPI 3.1, out of the shapes that it really takes."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from aiohttp import web

from mintoken import __version__, savings_shown, shapes, usage_shown
from mintoken.context import OPENAPI, Access
from mintoken.models import Intensity, Outcome
from mintoken.reports import Bucket, SplitBy
from mintoken.usage_shown import LARGEST_PAGE, PAGE

SCHEMAS = "#/components/schemas/{name}"


Shape = type[msgspec.Struct]
Content = Mapping[str, Mapping[str, object]]
"""What is no shape of ours: schemas by media type."""


class Operation(NamedTuple):
    """What a route does, takes and gives."""

    summary: str
    takes: Shape | Content | None = None
    gives: Shape | Content | None = None
    status: int = 200
    asks: tuple[str, ...] = ()
    """The parameters of its query, each of PARAMETERS."""
    headers: tuple[str, ...] = ()
    """Those that it takes, each of HEADERS."""


_TIME = {"type": "string", "format": "date-time"}
PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "start": _TIME,
    "end": _TIME,
    "bucket": {"enum": [*Bucket]},
    "by": {"enum": [*SplitBy]},
    "key_id": {"type": "string"},
    "model": {"type": "string"},
    "intensity": {"enum": [*Intensity]},
    "outcome": {"enum": [one for one in Outcome if one is not Outcome.RESERVED]},
    "limit": {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE},
    "before": {"type": "string", "description": "The `next` of the page before."},
    "after": {"type": "integer", "description": "The id of an event; as Last-Event-ID."},
}

HEADERS: Mapping[str, Mapping[str, object]] = {
    "X-Provider-Key": {
        "required": True,
        "schema": {"type": "string", "minLength": 8, "maxLength": 512},
        "description": "Sent to the provider, and kept nowhere.",
    },
    "X-Mintoken-Intensity": {"schema": {"enum": [*Intensity]}},
    "Last-Event-ID": {"schema": {"type": "integer"}, "description": "Wins over `after`."},
}
_CHAT = "https://platform.openai.com/docs/api-reference/chat"
ASKED: Content = {
    "application/json": {"type": "object", "externalDocs": {"url": f"{_CHAT}/create"}}
}
ANSWERED: Content = {
    "application/json": {"type": "object", "externalDocs": {"url": f"{_CHAT}/object"}},
    "text/event-stream": {"type": "string", "externalDocs": {"url": f"{_CHAT}/streaming"}},
}
EVENTS: Content = {
    "text/event-stream": {
        "type": "string",
        "description": "First an event `begin`; the `data` of each that follows is a RequestShown.",
    }
}

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/api/login"): Operation("Sign in; sets the cookie", shapes.SignIn, shapes.Me),
    ("POST", "/api/logout"): Operation("Sign out", status=204),
    ("GET", "/api/me"): Operation("Who asks", gives=shapes.Me),
    ("POST", "/api/me/password"): Operation(
        "Change one's password; sets the cookie", shapes.PasswordChange, status=204
    ),
    ("GET", "/api/account"): Operation("The account", gives=shapes.AccountShown),
    ("PATCH", "/api/account"): Operation(
        "Change the account's quota", shapes.AccountChange, shapes.AccountShown
    ),
    ("GET", "/api/members"): Operation("Who may sign in", gives=shapes.MemberList),
    ("POST", "/api/members"): Operation(
        "Let somebody sign in", shapes.MemberCreate, shapes.MemberShown, 201
    ),
    ("DELETE", "/api/members/{id}"): Operation("Remove somebody", status=204),
    ("GET", "/api/keys"): Operation("The keys", gives=shapes.KeyList),
    ("POST", "/api/keys"): Operation(
        "Make a key; it is shown once", shapes.KeyCreate, shapes.KeyIssued, 201
    ),
    ("PATCH", "/api/keys/{id}"): Operation("Change a key", shapes.KeyChange, shapes.KeyShown),
    ("POST", "/api/keys/{id}/rotate"): Operation(
        "Replace a key; the new one is shown once", shapes.KeyRotation, shapes.KeyIssued, 201
    ),
    ("POST", "/api/keys/{id}/revoke"): Operation("End a key for good", gives=shapes.KeyShown),
    ("POST", "/api/keys/{id}/playground"): Operation(
        "Ask the provider as this key would; the body and headers are /v1/chat/completions's",
        ASKED,
        ANSWERED,
        asks=("intensity",),
        headers=("X-Provider-Key", "X-Mintoken-Intensity"),
    ),
    ("GET", "/api/rules"): Operation("The rules", gives=shapes.RuleList),
    ("POST", "/api/rules"): Operation("Add a rule", shapes.RuleCreate, shapes.RuleShown, 201),
    ("DELETE", "/api/rules/{id}"): Operation("Remove a rule", status=204),
    ("POST", "/api/rules/try"): Operation(
        "What a text would get", shapes.RuleTry, shapes.RulesTried
    ),
    ("GET", "/api/usage/summary"): Operation(
        "What was used, and the month's quota",
        gives=usage_shown.SummaryShown,
        asks=("start", "end"),
    ),
    ("GET", "/api/usage/timeseries"): Operation(
        "What was used by hour, day or week",
        gives=usage_shown.TimeseriesShown,
        asks=("bucket", "by", "start", "end"),
    ),
    ("GET", "/api/usage/by-key"): Operation(
        "What each key used", gives=usage_shown.UsageByKey, asks=("start", "end")
    ),
    ("GET", "/api/usage/by-model"): Operation(
        "What each model used", gives=usage_shown.UsageByModel, asks=("start", "end")
    ),
    ("GET", "/api/requests"): Operation(
        "Requests that have ended, the newest first",
        gives=usage_shown.RequestPage,
        asks=("key_id", "model", "intensity", "outcome", "limit", "before"),
    ),
    ("GET", "/api/savings"): Operation(
        "What was saved, against the control arm", gives=savings_shown.SavingsShown
    ),
    ("GET", "/api/events"): Operation(
        "Requests as they are settled: server-sent events",
        gives=EVENTS,
        asks=("after",),
        headers=("Last-Event-ID",),
    ),
    ("GET", "/api/openapi.json"): Operation(
        "This description", gives={"application/json": {"type": "object"}}
    ),
}


async def openapi(request: web.Request) -> web.Response:
    """`GET /api/openapi.json`."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


def document(routes: Iterable[tuple[str, str, Access]]) -> bytes:
    """The description of those of the routes that are operations."""
    named = [(*route, OPERATIONS[route[:2]]) for route in routes if route[:2] in OPERATIONS]
    shaped = {
        one for *_, said in named for one in (said.takes, said.gives) if isinstance(one, type)
    }
    _, schemas = msgspec.json.schema_components(
        {*shaped, shapes.FailureShown}, ref_template=SCHEMAS
    )
    paths: dict[str, dict[str, object]] = {}
    for method, path, access, operation in named:
        paths.setdefault(path, {})[method.lower()] = _described(path, access, operation)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Mintoken control plane", "version": __version__},
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": _SCHEMES},
        }
    )


_SCHEMES = {
    "admin_key": {"type": "http", "scheme": "bearer", "description": "mt_admin_..."},
    "session": {"type": "apiKey", "in": "cookie", "name": "mintoken_session"},
}


def _described(path: str, access: Access, operation: Operation) -> dict[str, object]:
    answer: dict[str, object] = {"description": operation.summary}
    if operation.gives:
        answer["content"] = _content(operation.gives)
    described: dict[str, object] = {
        "summary": operation.summary,
        "security": [{name: []} for name in _SCHEMES] if access.role else [],
        "responses": {
            str(operation.status): answer,
            "default": {"description": "An error", "content": _content(shapes.FailureShown)},
        },
    }
    if access.role:
        described["x-role"] = access.role.value
    parameters = [_in_path(name) for name in re.findall(r"{(\w+)}", path)]
    parameters += [_in_query(name) for name in operation.asks]
    parameters += [{"name": name, "in": "header", **HEADERS[name]} for name in operation.headers]
    if parameters:
        described["parameters"] = parameters
    if operation.takes:
        described["requestBody"] = {"required": True, "content": _content(operation.takes)}
    return described


def _content(said: Shape | Content) -> dict[str, object]:
    if isinstance(said, type):
        said = {"application/json": {"$ref": SCHEMAS.format(name=said.__name__)}}
    return {media_type: {"schema": schema} for media_type, schema in said.items()}


def _in_path(name: str) -> dict[str, object]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(name: str) -> dict[str, object]:
    return {"name": name, "in": "query", "schema": PARAMETERS[name]}
