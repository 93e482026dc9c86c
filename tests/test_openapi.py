"""The description of the control plane is that of the real routes."""

import re
from typing import Any

import msgspec
import pytest
from conftest import CHAT, PROVIDER_CANARY, Proxy
from fake_upstream import DONE, END, FakeUpstream, delta, stream_head
from staff import Caller, script

from mintoken.app import ROUTES
from mintoken.people import Role
from mintoken.routes.openapi import OPERATIONS


async def described(proxy: Proxy) -> dict[str, Any]:
    caller = Caller(proxy)
    document: dict[str, Any] = await caller.ask("GET", "/api/openapi.json")
    assert caller.status == 200
    assert caller.last is not None
    assert caller.last.content_type == "application/json"
    return document


async def test_every_route_is_described_and_every_described_path_exists(proxy: Proxy) -> None:
    document = await described(proxy)
    assert document["openapi"].startswith("3.1.")
    told = {(m.upper(), path) for path, one in document["paths"].items() for m in one}
    assert told == {(method, path) for method, path, *_ in ROUTES if path.startswith("/api/")}


async def test_roles_and_parameters_are_those_of_the_routes(proxy: Proxy) -> None:
    paths = (await described(proxy))["paths"]
    for method, path, _, access in ROUTES:
        if path.startswith("/api/"):
            operation = paths[path][method.lower()]
            assert operation.get("x-role") == (access.role and access.role.value)
            assert bool(operation["security"]) == bool(access.role)
            in_path = [one["name"] for one in _parameters(operation, "path")]
            assert in_path == re.findall(r"{(\w+)}", path)
            assert "default" in operation["responses"]


def _parameters(operation: dict[str, Any], place: str) -> list[dict[str, Any]]:
    return [one for one in operation.get("parameters", ()) if one["in"] == place]


GIVEN = [
    path
    for (method, path), one in OPERATIONS.items()
    if method == "GET" and isinstance(one.gives, type)
]
ASKED = [path for (method, path), one in OPERATIONS.items()
         if one.asks and method == "GET" and path != "/api/events"]  # fmt: skip


@pytest.mark.parametrize("path", GIVEN)
async def test_what_is_given_has_the_described_shape_and_nothing_more(
    proxy: Proxy, path: str
) -> None:
    await proxy.post()
    await proxy.settled()
    owner = await script(proxy, Role.OWNER)
    answer = await owner.ask("GET", path)
    shape = OPERATIONS["GET", path].gives
    assert isinstance(shape, type)
    assert msgspec.to_builtins(msgspec.convert(answer, shape)) == answer


async def test_every_answer_that_has_a_body_is_described(proxy: Proxy) -> None:
    for path, methods in (await described(proxy))["paths"].items():
        for method, operation in methods.items():
            [status] = [one for one in operation["responses"] if one != "default"]
            assert ("content" in operation["responses"][status]) is (status != "204"), path
            has_body = method in ("post", "patch") and not path.endswith(("logout", "revoke"))
            assert ("requestBody" in operation) is has_body, path


@pytest.mark.parametrize("stream", [False, True])
async def test_the_playground_takes_and_gives_what_is_described(
    proxy: Proxy, upstream: FakeUpstream, *, stream: bool
) -> None:
    admin = await script(proxy, Role.ADMIN)
    [key] = (await admin.ask("GET", "/api/keys"))["data"]
    path = "/api/keys/{id}/playground"
    operation = (await described(proxy))["paths"][path]["post"]
    told = {one["name"]: one.get("required", False) for one in _parameters(operation, "header")}
    assert told == {"X-Provider-Key": True, "X-Mintoken-Intensity": False}
    if stream:
        upstream.play(stream_head(), delta("Hello"), DONE, END)
    headers = admin.headers | {"X-Provider-Key": PROVIDER_CANARY}
    url = f"{proxy.admin_url}{path.replace('{id}', key['id'])}"
    async with proxy.session.post(url, json=CHAT | {"stream": stream}, headers=headers) as answer:
        await answer.read()
    assert answer.status == 200
    media_types = [*operation["responses"]["200"]["content"]]
    assert media_types.index(answer.content_type) == stream


@pytest.mark.parametrize("path", ASKED)
async def test_the_parameters_of_a_query_are_those_that_are_known(proxy: Proxy, path: str) -> None:
    owner = await script(proxy, Role.OWNER)
    error = (await owner.ask("GET", f"{path}?nonsense=1"))["error"]
    operation = (await described(proxy))["paths"][path]["get"]
    told = [one["name"] for one in _parameters(operation, "query")]
    assert error["message"].endswith(f"Use: {', '.join(told)}.")


async def test_every_reference_leads_somewhere_and_every_schema_is_used(proxy: Proxy) -> None:
    document = await described(proxy)
    found: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                found.add(value["$ref"].removeprefix("#/components/schemas/"))
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(document)
    assert found == set(document["components"]["schemas"])


async def test_bodies_that_are_taken_refuse_what_is_not_named(proxy: Proxy) -> None:
    document = await described(proxy)
    schemas = document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]["application/json"]
                if "$ref" not in content["schema"]:
                    continue  # The playground's, which is the provider's business.
                name = content["schema"]["$ref"].rpartition("/")[2]
                assert schemas[name]["additionalProperties"] is False, name
    assert schemas["KeyCreate"]["properties"]["smart_detect_enabled"]["default"] is True
    assert "raw_key" in schemas["KeyIssued"]["required"]
    assert "raw_key" not in schemas["KeyShown"]["properties"]
