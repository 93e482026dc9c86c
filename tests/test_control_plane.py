"""What the control plane does: whole requests, by scripts and by who signed in."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import PROVIDER_CANARY, Proxy
from staff import PASSWORD, Caller, hire, member, script

from mintoken.arms import MOST_CONTROL
from mintoken.clock import utc_text
from mintoken.people import Role


@pytest.fixture
async def owner(proxy: Proxy) -> Caller:
    return await script(proxy, Role.OWNER)


async def chat(proxy: Proxy, token: str) -> int:
    answer = await proxy.post(Authorization=f"Bearer {token}")
    return answer.status


async def test_a_key_from_its_creation_to_its_end(proxy: Proxy, owner: Caller) -> None:
    made = await owner.ask("POST", "/api/keys", {"name": "app", "intensity": "lite"})
    assert owner.status == 201
    token = made.pop("raw_key")
    proxy.keys.append(token)
    assert token.startswith(made["key_prefix"])
    assert (made["name"], made["intensity"], made["is_active"]) == ("app", "lite", True)
    assert made["smart_detect_enabled"] is True
    assert (made["last_used_at"], made["revoked_at"], made["expires_at"]) == (None, None, None)
    assert await chat(proxy, token) == 200
    listed = await owner.ask("GET", "/api/keys")
    assert made in [key | {"last_used_at": None} for key in listed["data"]]
    assert "raw_key" not in str(listed)
    ended = await owner.ask("POST", f"/api/keys/{made['id']}/revoke")
    assert (ended["is_active"], bool(ended["revoked_at"])) == (False, True)
    assert await chat(proxy, token) == 401
    again = await owner.ask("POST", f"/api/keys/{made['id']}/revoke")
    assert again == ended
    await owner.ask("PATCH", f"/api/keys/{made['id']}", {"rpm": 1})
    assert owner.status == 409
    await owner.ask("POST", f"/api/keys/{made['id']}/rotate")
    assert owner.status == 409
    await proxy.settled(1)


async def test_what_is_given_of_a_key_changes_and_nothing_else(owner: Caller) -> None:
    made = await owner.ask("POST", "/api/keys", {})
    made.pop("raw_key")
    changes: dict[str, Any] = {
        "name": "renamed", "intensity": "ultra", "smart_detect_enabled": False, "control": 10,
        "concise": 5, "auto_stop": False, "rpm": 7, "concurrency": 3,
        "expires_at": "2099-01-31T18:00:00Z",
    }  # fmt: skip
    for name, value in changes.items():
        changed = await owner.ask("PATCH", f"/api/keys/{made['id']}", {name: value})
        assert owner.status == 200
        assert changed == made | {name: value}
        made = changed
    never = await owner.ask("PATCH", f"/api/keys/{made['id']}", {"expires_at": None})
    assert never == made | {"expires_at": None}
    same = await owner.ask("PATCH", f"/api/keys/{made['id']}", {})
    assert same == never


async def test_an_expiry_far_behind_the_calendar_hides_no_key(owner: Caller) -> None:
    made = await owner.ask("POST", "/api/keys", {"expires_at": "9999-12-31T23:59:59-14:00"})
    assert (owner.status, made["expires_at"]) == (201, "9999-12-31T23:59:59Z")
    assert made["id"] in [key["id"] for key in (await owner.ask("GET", "/api/keys"))["data"]]


async def test_a_key_that_is_revoked_while_it_is_changed_stays_revoked(owner: Caller) -> None:
    for _ in range(5):
        path = f"/api/keys/{(await owner.ask('POST', '/api/keys', {}))['id']}"
        callers = [Caller(owner.proxy, owner.headers) for _ in range(3)]
        await asyncio.gather(
            callers[0].ask("PATCH", path, {"rpm": 5}),
            callers[1].ask("POST", f"{path}/revoke"),
            callers[2].ask("PATCH", path, {"rpm": 7}),
        )
        assert callers[1].status == 200
        keys = (await owner.ask("GET", "/api/keys"))["data"]
        assert [key["is_active"] for key in keys if path.endswith(key["id"])] == [False]


async def test_who_changes_a_key_at_once_loses_nothing(owner: Caller) -> None:
    for _ in range(5):
        path = f"/api/keys/{(await owner.ask('POST', '/api/keys', {}))['id']}"
        asked = [
            ("PATCH", path, {"rpm": 5}), ("PATCH", path, {"concurrency": 7}),
            ("POST", f"{path}/rotate", {"overlap_seconds": 0}), ("PATCH", path, {"control": 9}),
        ]  # fmt: skip
        callers = [Caller(owner.proxy, owner.headers) for _ in asked]
        await asyncio.gather(*(one.ask(*line) for one, line in zip(callers, asked, strict=True)))
        assert [one.status for one in callers] == [200, 200, 201, 200]
        keys = (await owner.ask("GET", "/api/keys"))["data"]
        [old] = [key for key in keys if path.endswith(key["id"])]
        assert (old["rpm"], old["concurrency"], old["control"]) == (5, 7, 9)
        assert not old["is_active"]


async def test_a_name_in_use_is_a_conflict_until_its_key_is_revoked(owner: Caller) -> None:
    made = await owner.ask("POST", "/api/keys", {"name": "app"})
    other = await owner.ask("POST", "/api/keys", {"name": "other"})
    for method, path in (("POST", "/api/keys"), ("PATCH", f"/api/keys/{other['id']}")):
        document = await owner.ask(method, path, {"name": "app"})
        assert (owner.status, document["error"]["code"]) == (409, "conflict")
        assert "'app'" in document["error"]["message"]
    await owner.ask("POST", f"/api/keys/{made['id']}/revoke")
    await owner.ask("POST", "/api/keys", {"name": "app"})
    assert owner.status == 201


async def test_a_rotated_key_works_beside_the_new_one_for_a_while(
    proxy: Proxy, owner: Caller
) -> None:
    made = await owner.ask("POST", "/api/keys", {"name": "app", "intensity": "lite"})
    new = await owner.ask("POST", f"/api/keys/{made['id']}/rotate", {"overlap_seconds": 3600})
    assert owner.status == 201
    assert (new["name"], new["intensity"]) == ("app", "lite")
    proxy.keys += [made["raw_key"], new["raw_key"]]
    old = next(k for k in (await owner.ask("GET", "/api/keys"))["data"] if k["id"] == made["id"])
    left = datetime.fromisoformat(old["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert [await chat(proxy, one["raw_key"]) for one in (made, new)] == [200, 200]
    last = await owner.ask("POST", f"/api/keys/{new['id']}/rotate", {"overlap_seconds": 0})
    assert await chat(proxy, new["raw_key"]) == 401
    await owner.ask("POST", f"/api/keys/{last['id']}/rotate")
    assert owner.status == 201
    proxy.keys.append(last["raw_key"])
    await proxy.settled(2)


BAD = [
    ({"nam": "x"}, "nam"),
    ({"name": ""}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"name": 7}, "name"),
    ({"intensity": "loud-secret"}, "intensity"),
    ({"control": MOST_CONTROL + 1}, "control"),
    ({"rpm": -1}, "rpm"),
    ({"rpm": 1.5}, "rpm"),
    ({"concurrency": 10**10}, "concurrency"),
    ({"smart_detect_enabled": "yes"}, "smart_detect_enabled"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
    ({"account_id": "other"}, "account_id"),
    ({"id": "key_x"}, "id"),
    ([], None),
]


@pytest.mark.parametrize(("body", "param"), BAD, ids=str)
async def test_what_cannot_be_used_is_named_and_changes_nothing(
    owner: Caller, body: object, param: str | None
) -> None:
    made = await owner.ask("POST", "/api/keys", {"name": "app"})
    before = await owner.ask("GET", "/api/keys")
    for method, path in (("POST", "/api/keys"), ("PATCH", f"/api/keys/{made['id']}")):
        document = await owner.ask(method, path, body)
        error = document["error"]
        assert (owner.status, error["code"], error["param"]) == (400, "invalid_field", param)
        assert "loud-secret" not in str(document)
    assert await owner.ask("GET", "/api/keys") == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"name": "\xff"}', "invalid_json"),
        (b'{"name": "\\ud800"}', "invalid_json"),
        (b'{"name": ' + b"[" * 100_000, "invalid_field"),
        (b'{"name": "' + b"x" * 300_000 + b'"}', "request_too_large"),
    ],
    ids=["broken", "empty", "not UTF-8", "half a pair", "deep", "large"],
)
async def test_odd_bodies_are_refused(proxy: Proxy, owner: Caller, body: bytes, code: str) -> None:
    answer = await proxy.session.post(
        f"{proxy.admin_url}/api/keys",
        data=body,
        headers=owner.headers | {"Content-Type": "application/json"},
    )
    document = await answer.json()
    assert document["error"]["code"] == code


async def test_too_large_arms_are_a_conflict(owner: Caller) -> None:
    document = await owner.ask("POST", "/api/keys", {"control": 30, "concise": 30})
    assert (owner.status, document["error"]["code"]) == (409, "conflict")
    assert "30 + 30" in document["error"]["message"]


async def test_rules_are_made_tried_and_removed(proxy: Proxy, owner: Caller) -> None:
    key = await owner.ask("POST", "/api/keys", {"intensity": "full"})
    proxy.keys.append(key["raw_key"])
    rule = await owner.ask(
        "POST", "/api/rules", {"action": "level:lite", "pattern": "(?i)hello", "priority": 3}
    )
    assert (rule["action"], rule["pattern"], rule["priority"]) == ("level:lite", "(?i)hello", 3)
    assert (await owner.ask("GET", "/api/rules"))["data"] == [rule]
    tried = await owner.ask("POST", "/api/rules/try", {"text": "Hello", "key_id": key["id"]})
    assert (tried["intensity"], tried["reason"]) == ("lite", f"rule:{rule['id']}")
    assert tried["matching"] == [rule]
    answer = await proxy.post(Authorization=f"Bearer {key['raw_key']}")
    assert answer.headers["X-Mintoken-Reason"] == f"rule:{rule['id']}"
    await owner.ask("DELETE", f"/api/rules/{rule['id']}")
    assert owner.status == 204
    await owner.ask("DELETE", f"/api/rules/{rule['id']}")
    assert owner.status == 404
    tried = await owner.ask("POST", "/api/rules/try", {"text": "Translate this to French: x"})
    assert (tried["intensity"], tried["matching"]) == (None, [])
    assert tried["detected"] == "detect:translate"
    await proxy.settled(1)


@pytest.mark.parametrize("pattern", ["(", "(?=x)", "\\pL{100}"])
async def test_a_pattern_that_cannot_be_used_says_why(owner: Caller, pattern: str) -> None:
    document = await owner.ask(
        "POST", "/api/rules", {"action": "never_compress", "pattern": pattern}
    )
    assert owner.status == 409
    assert "pattern" in document["error"]["message"]


async def test_the_quota_is_changed_by_the_owner(proxy: Proxy, owner: Caller) -> None:
    account = await owner.ask("GET", "/api/account")
    assert (account["name"], account["monthly_tokens"]) == ("default", 0)
    changed = await owner.ask("PATCH", "/api/account", {"monthly_tokens": 1})
    assert changed == account | {"monthly_tokens": 1}
    assert await chat(proxy, proxy.key) == 200
    await proxy.settled(1)
    assert await chat(proxy, proxy.key) == 429
    for value in (-1, 10**16, None, "5"):
        await owner.ask("PATCH", "/api/account", {"monthly_tokens": value})
        assert owner.status == 400
    await owner.ask("PATCH", "/api/account", {"name": "x", "monthly_tokens": 2})
    assert owner.status == 400


async def test_members_come_and_go_and_the_last_owner_stays(proxy: Proxy) -> None:
    owner = await member(proxy, Role.OWNER)
    me = (await owner.ask("GET", "/api/me"))["id"]
    made = await owner.ask(
        "POST", "/api/members", {"name": "ada", "role": "viewer", "password": PASSWORD}
    )
    assert owner.status == 201
    assert "password" not in str(made)
    assert made in (await owner.ask("GET", "/api/members"))["data"]
    ada = await Caller(proxy).sign_in("ada")
    for body in (
        {"name": "ada", "role": "viewer", "password": PASSWORD},
        {"name": "bob", "role": "viewer", "password": "too short"},
        {"name": "bob", "role": "king", "password": PASSWORD},
        {"name": "b\nb", "role": "viewer", "password": PASSWORD},
    ):
        await owner.ask("POST", "/api/members", body)
        assert owner.status in (400, 409)
    await owner.ask("DELETE", f"/api/members/{made['id']}")
    assert owner.status == 204
    await ada.ask("GET", "/api/me")
    assert ada.status == 401
    document = await owner.ask("DELETE", f"/api/members/{me}")
    assert (owner.status, document["error"]["code"]) == (409, "conflict")
    await owner.ask("POST", "/api/members", {"name": "b", "role": "owner", "password": PASSWORD})
    await owner.ask("DELETE", f"/api/members/{me}")
    assert owner.status == 204


async def test_two_owners_who_remove_each_other_leave_one(proxy: Proxy, owner: Caller) -> None:
    users = [await hire(proxy.data_dir, name, Role.OWNER) for name in ("ada", "bob")]
    callers = [Caller(proxy, owner.headers) for _ in users]
    asked = zip(callers, users, strict=True)
    await asyncio.gather(*(one.ask("DELETE", f"/api/members/{user.id}") for one, user in asked))
    assert sorted(one.status for one in callers) == [204, 409]
    assert len((await owner.ask("GET", "/api/members"))["data"]) == 1


async def test_a_database_that_cannot_be_asked_refuses_and_says_so(
    proxy: Proxy, owner: Caller
) -> None:
    database = proxy.data_dir / "mintoken.db"
    moved = database.rename(database.with_name("moved.db"))
    document = await owner.ask("POST", "/api/rules", {"action": "level:lite", "pattern": "x"})
    moved.rename(database)
    assert (owner.status, document["error"]["code"]) == (503, "storage_unavailable")
    assert str(proxy.data_dir) not in str(document)
    assert PROVIDER_CANARY not in str(document)


async def test_a_key_tells_when_it_was_last_used(proxy: Proxy) -> None:
    caller = await script(proxy, Role.VIEWER)
    [unused] = (await caller.ask("GET", "/api/keys"))["data"]
    assert unused["last_used_at"] is None
    await proxy.post()
    [row] = await proxy.settled()
    [used] = (await caller.ask("GET", "/api/keys"))["data"]
    assert used["last_used_at"] == utc_text(row["started_at"])
