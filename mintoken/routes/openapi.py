"""The description of the control plane, in OpenAPI 3.1, out of the shapes that it really takes."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from aiohttp import web

from mintoken import __version__, shapes, usage_shown
from mintoken.context import OPENAPI, Access
from mintoken.models import Intensity, Outcome
from mintoken.reports import Bucket, SplitBy
from mintoken.usage_shown import LARGEST_PAGE, PAGE

SCHEMAS = "#/components/schemas/{name}"


class Operation(NamedTuple):
    """What a route does, takes and gives."""

    summary: str
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | None = None
    status: int = 200
    asks: tuple[str, ...] = ()
    """The parameters of its query, each of PARAMETERS."""


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
        "Ask the provider as this key would: the body and headers of /v1/chat/completions"
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
    ("GET", "/api/savings"): Operation("What was saved, against the control arm"),
    ("GET", "/api/events"): Operation(
        "Requests as they are settled: server-sent events", asks=("after",)
    ),
    ("GET", "/api/openapi.json"): Operation("This description"),
}


async def openapi(request: web.Request) -> web.Response:
    """`GET /api/openapi.json`."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


def document(routes: Iterable[tuple[str, str, Access]]) -> bytes:
    """The description of those of the routes that are operations."""
    named = [(*route, OPERATIONS[route[:2]]) for route in routes if route[:2] in OPERATIONS]
    shaped = {shape for *_, one in named for shape in (one.takes, one.gives) if shape}
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
        answer["content"] = _json(operation.gives)
    described: dict[str, object] = {
        "summary": operation.summary,
        "security": [{name: []} for name in _SCHEMES] if access.role else [],
        "responses": {
            str(operation.status): answer,
            "default": {"description": "An error", "content": _json(shapes.FailureShown)},
        },
    }
    if access.role:
        described["x-role"] = access.role.value
    parameters = [_in_path(name) for name in re.findall(r"{(\w+)}", path)]
    parameters += [_in_query(name) for name in operation.asks]
    if parameters:
        described["parameters"] = parameters
    if operation.takes:
        described["requestBody"] = {"required": True, "content": _json(operation.takes)}
    return described


def _json(shape: type[msgspec.Struct]) -> dict[str, object]:
    return {"application/json": {"schema": {"$ref": SCHEMAS.format(name=shape.__name__)}}}


def _in_path(name: str) -> dict[str, object]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(name: str) -> dict[str, object]:
    return {"name": name, "in": "query", "schema": PARAMETERS[name]}
