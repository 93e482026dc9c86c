"""Who works with the control plane: users, their sessions, and keys for scripts."""

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do in his account; each may also do what those after it may."""

    OWNER = "owner"
    ADMIN = "admin"
    VIEWER = "viewer"

    def includes(self, needed: "Role") -> bool:
        """May this role do what the needed one may?"""
        roles = [*Role]
        return roles.index(self) <= roles.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who signs in; `password_hash` is argon2id's text. Times are UTC milliseconds."""

    id: str
    account_id: str
    name: str
    role: Role
    password_hash: str = field(repr=False)
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A user who is signed in; `id` is the keyed hash, in hexadecimal, of what a browser holds."""

    id: str
    user_id: str
    created_at: int
    last_seen_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """A key for scripts, without its secret; it may do what a user of its role may."""

    id: str
    account_id: str
    name: str
    role: Role
    prefix: str
    hash: bytes = field(repr=False)
    created_at: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """Who asks, and what for: a user, or an admin key, whose id and name are then given.

    `session_id` is empty for an admin key.
    """

    user_id: str
    name: str
    role: Role
    account_id: str
    session_id: str = ""
