"""Signing in and staying signed in, and whom a request's credentials belong to."""

import secrets
from contextlib import suppress

from mintoken.config import AdminConfig
from mintoken.errors import StorageError
from mintoken.keys import ADMIN, hash_key, is_well_formed
from mintoken.people import Member, Session, User
from mintoken.stores.base import UserStore

SEEN_EVERY_MS = 60_000
"""How exactly it is known when a session was last seen: to note it takes a commit."""


def is_alive(session: Session, options: AdminConfig, *, now_ms: int) -> bool:
    """Is it within both limits, that of being idle and that of its whole life?"""
    began, seen = _oldest(options, now_ms)
    return session.created_at > began and session.last_seen_at > seen


def _oldest(options: AdminConfig, now_ms: int) -> tuple[int, int]:
    """When a session that ends now began, and when it was last seen."""
    return now_ms - int(options.session_limit * 1000), now_ms - int(options.session_idle * 1000)


async def open_session(
    store: UserStore, secret: bytes, user: User, options: AdminConfig, *, now_ms: int
) -> str:
    """A new session; what the user's browser is to hold. Raises StorageError."""
    token = secrets.token_urlsafe(32)
    session = Session(
        id=_id(secret, token), user_id=user.id, created_at=now_ms, last_seen_at=now_ms
    )
    await store.open_session(session, before=_oldest(options, now_ms))
    return token


async def member_of_session(
    store: UserStore, secret: bytes, token: str, options: AdminConfig, *, now_ms: int
) -> Member | None:
    """Who holds this session, None if it has ended or never was. Raises StorageError."""
    session_id = _id(secret, token)
    found = await store.session(session_id)
    if found is None or not is_alive(found[0], options, now_ms=now_ms):
        return None
    session, user = found
    if now_ms - session.last_seen_at >= min(SEEN_EVERY_MS, options.session_idle * 100):
        with suppress(StorageError):  # Who may look may look at what a full disk still shows.
            await store.see_session(session_id, now_ms=now_ms)
    return Member(user.id, user.name, user.role, user.account_id, session_id)


async def member_of_key(store: UserStore, secret: bytes, token: str) -> Member | None:
    """For whom this admin key asks, None if it is none in use. Raises StorageError."""
    if not is_well_formed(token, start=ADMIN):
        return None
    for key in await store.admin_keys(hash_=hash_key(secret, token)):
        if key.revoked_at is None:
            return Member(key.id, key.name, key.role, key.account_id)
    return None


async def is_still_in(
    store: UserStore, member: Member, options: AdminConfig, *, now_ms: int
) -> bool:
    """Is what this member came by still good? To look prolongs no session. Raises StorageError."""
    if member.session_id:
        found = await store.session(member.session_id)
        return found is not None and is_alive(found[0], options, now_ms=now_ms)
    keys = await store.admin_keys()
    return any(key.id == member.user_id and key.revoked_at is None for key in keys)


def _id(secret: bytes, token: str) -> str:
    return hash_key(secret, token).hex()
