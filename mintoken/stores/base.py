"""The seam of the databases: whole questions, never SQL."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mintoken.models import (
    Account,
    Admission,
    Directory,
    Key,
    Progress,
    QuotaCounts,
    Reservation,
    Rule,
    Settlement,
    Verdict,
)
from mintoken.people import AdminKey, Session, User
from mintoken.reports import (
    ArmSample,
    Bucket,
    GroupBy,
    Quota,
    RequestFilter,
    Series,
    Settled,
    Span,
    SplitBy,
    Summary,
    UsageLine,
    UsageOf,
    UsageRow,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit does, in this order: settle, note progress, reserve."""

    settlements: Sequence[Settlement] = field(default=())
    progress: Sequence[Progress] = field(default=())
    reservations: Sequence[Reservation] = field(default=())


class UserStore(Protocol):
    """The part of a store that knows people."""

    async def users(self, *, account_id: str | None = None, name: str | None = None) -> list[User]:
        """The users, of an account or of this name if that is given, the oldest first."""

    async def save_user(self, user: User) -> None:
        """Insert the user, or update the one with his id. Raises NameTakenError."""

    async def invite(self, hash_: bytes, *, expires_at: int) -> bool:
        """Keep a link's hash in place of the one before; False if there is a user already."""

    async def is_invited(self, hash_: bytes, *, now_ms: int) -> bool:
        """Is this the hash of the link that is kept? Any new user ends it."""

    async def save_invited(self, user: User, hash_: bytes) -> bool:
        """Insert the user if the link of this hash is good when he is made; which ends it."""

    async def set_password(self, user_id: str, password_hash: str) -> None:
        """Give the user, if he is there, a new password; this ends all his sessions."""

    async def remove_user(self, user_id: str, *, keep_an_owner: bool = False) -> bool:
        """Delete the user and his sessions, but not an account's last owner if one is to be kept.

        False if nobody was deleted.
        """

    async def open_session(self, session: Session, *, before: tuple[int, int]) -> None:
        """Keep a new session; forget those that began, or were last seen, before these times."""

    async def session(self, session_id: str) -> tuple[Session, User] | None:
        """A session, however old, and its user."""

    async def see_session(self, session_id: str, *, now_ms: int) -> None:
        """Note that the session, if it is there, was seen now."""

    async def close_session(self, session_id: str) -> None:
        """Delete the session, if it is there."""

    async def admin_keys(self, *, hash_: bytes | None = None) -> list[AdminKey]:
        """The keys for scripts, or the one of this hash, revoked ones too, the oldest first."""

    async def save_admin_key(self, key: AdminKey) -> None:
        """Insert the key, or update the one with its id. Raises NameTakenError."""


class UsageStore(Protocol):
    """The part of a store that answers the dashboard: of settled rows, and of those purged too.

    Nothing here takes long, however many rows there are: sums are kept by hour and by day.
    """

    async def summary(self, account_id: str, span: Span) -> Summary:
        """What the account used in that time, with percentiles of its latency."""

    async def timeseries(
        self, account_id: str, span: Span, *, bucket: Bucket, by: SplitBy
    ) -> list[Series]:
        """A value for every bucket of a span of whole buckets, by level or model, the most first.

        By model, the last line may be OTHER. By none, it is one line without a name.
        """

    async def by_key(self, account_id: str, span: Span) -> list[UsageOf]:
        """What each key (its id) used in that time, the one with the most requests first."""

    async def by_model(self, account_id: str, span: Span) -> list[UsageOf]:
        """What each model used, the one with the most requests first; the last may be OTHER."""

    async def requests(
        self, account_id: str, *, wanted: RequestFilter, limit: int, before: str = ""
    ) -> list[UsageRow]:
        """Up to `limit` settled rows that are wanted, the newest first, older than the id `before`.

        Their ids are UUIDv7, in the order of time.
        """

    async def newest_place(self) -> int:
        """The place, in the order of settlements, of the last row that was settled."""

    async def settled_after(self, place: int, *, account_id: str, limit: int) -> list[Settled]:
        """Up to `limit` of an account's rows that were settled behind that place, in their order.

        Places only grow, over all workers; a row of a later commit never has an earlier one. What
        was purged is gone.
        """

    async def last_used(self, account_id: str) -> Mapping[str, int]:
        """When each key of the account was last used: UTC milliseconds, within a second."""

    async def quota(self, account_id: str, month: str) -> Quota:
        """Where the account stands in that month (UTC, YYYY-MM)."""


class Store(UserStore, UsageStore, Protocol):
    """One database. Every method raises StorageError when the database cannot do it just now."""

    async def directory(self, known_revision: int = -1) -> Directory | None:
        """All accounts, keys and rules; None if the store is still at `known_revision`."""

    async def save(self, *records: Account | Key | Rule, revision: int | None = None) -> bool:
        """Insert the records, or update those with their ids, all or none. Raises NameTakenError.

        False, and nothing is saved, if the directory is not at this revision any more.
        """

    async def remove_rule(self, rule_id: str) -> None:
        """Delete the rule of this id, if it is there."""

    async def judge(self, verdicts: Mapping[tuple[str, str], Verdict]) -> None:
        """Stop or resume the product for pairs of a `Key.experiment` and a model.

        What is so already stays as it is, with its date.
        """

    async def commit(self, batch: Batch) -> Mapping[str, Admission]:
        """Apply the batch in one durable transaction, all or nothing.

        Settlements are idempotent: only a row still reserved is settled. A reservation is refused
        when the account's month has no room for its `needed_tokens`. Answers an Admission for
        every reservation, by its id; the same id twice counts once. It is finished even if the
        caller is cancelled.
        """

    async def recover(self, *, counts: QuotaCounts) -> int:
        """Settle as crashed what dead workers left reserved; how many rows that were.

        Something is written even if there is nothing to settle, so that a store that cannot be
        written is found out before a request needs it.
        """

    async def report(
        self, *, month: str, group_by: GroupBy, account_id: str | None = None
    ) -> list[UsageLine]:
        """Sums of the settled rows of one month (UTC, YYYY-MM) by day, key, model or outcome.

        What was purged of the month comes first, as one line of the group PURGED.
        """

    async def samples(
        self,
        *,
        since_ms: int = 0,
        account_id: str | None = None,
        experiments: Collection[str] | None = None,
    ) -> list[ArmSample]:
        """What the arms of experiments add up to, of requests since then (UTC milliseconds).

        It is kept as sums, so that it is quick; only with `since_ms` are the rows added up.

        Of rows that ended with status 200 as `ok` or `client_closed`; what was stopped is in no
        comparison. A conversation on two models counts on each. Keys that rotation replaced count
        as one: a sample's `key_id` is their `Key.experiment`, by which they are asked for.
        Bucket 0 is an opening below 256 bytes; each further one takes four times as much, up to
        bucket 6 from 256 KiB on. What was purged is gone from here too.
        """

    async def purge(self, *, before: str, limit: int) -> int:
        """Delete up to `limit` settled rows of months before `before`; how many that were.

        What they add up to is kept. Rows still reserved stay.
        """

    async def audit(self) -> list[str]:
        """Every sum that is kept and is not that of its rows, one line each; empty is good."""

    async def close(self) -> None:
        """Let go of the database and of this worker's lock."""
