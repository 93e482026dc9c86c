"""Accounts, keys and users as JSON shows them."""

from collections.abc import Iterable

from mintoken.admin import find_account, state
from mintoken.clock import utc_text
from mintoken.models import Account, Directory, Key
from mintoken.people import AdminKey, User


def account_document(account: Account) -> dict[str, object]:
    """An account as JSON shows it."""
    return {
        "id": account.id,
        "name": account.name,
        "monthly_tokens": account.monthly_tokens,
        "created_at": utc_text(account.created_at),
    }


def key_document(key: Key, directory: Directory, *, now_ms: int) -> dict[str, object]:
    """A key as JSON shows it, without its secret and without its hash."""
    return {
        "id": key.id,
        "name": key.name,
        "account": find_account(directory, key.account_id).name,
        "prefix": key.prefix,
        "state": state(key, now_ms=now_ms),
        "intensity": key.intensity.value,
        "smart_detect_enabled": key.smart,
        "rpm": key.rpm,
        "concurrency": key.concurrency,
        "control": key.control,
        "concise": key.concise,
        "auto_stop": key.auto_stop,
        "created_at": utc_text(key.created_at),
        "expires_at": utc_text(key.expires_at),
        "revoked_at": utc_text(key.revoked_at),
    }


def user_document(user: User, directory: Directory) -> dict[str, object]:
    """A user as JSON shows him, without his password's hash."""
    return {
        "id": user.id,
        "name": user.name,
        "account": find_account(directory, user.account_id).name,
        "role": user.role.value,
        "created_at": utc_text(user.created_at),
    }


def admin_key_document(key: AdminKey, directory: Directory) -> dict[str, object]:
    """An admin key as JSON shows it, without its secret and without its hash."""
    return {
        "id": key.id,
        "name": key.name,
        "account": find_account(directory, key.account_id).name,
        "prefix": key.prefix,
        "role": key.role.value,
        "state": "active" if key.revoked_at is None else "revoked",
        "created_at": utc_text(key.created_at),
        "revoked_at": utc_text(key.revoked_at),
    }


def stop_documents(directory: Directory, keys: Iterable[Key]) -> list[dict[str, object]]:
    """Where the product of these keys is stopped because it does not pay, the longest first."""
    names = {key.experiment: key.name for key in keys if key.is_watched and not key.revoked_at}
    stops = [
        (verdict.since_ms, names[experiment], model)
        for (experiment, model), verdict in directory.verdicts.items()
        if verdict.stopped and experiment in names
    ]
    return [{"key": key, "model": model, "since": utc_text(at)} for at, key, model in sorted(stops)]
