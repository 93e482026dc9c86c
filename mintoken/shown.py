"""What the control plane knows, put into the shapes of its JSON."""

from mintoken.admin import state
from mintoken.clock import utc_text
from mintoken.models import Account, Key, Rule
from mintoken.people import Member, User
from mintoken.shapes import AccountShown, KeyIssued, KeyShown, Me, MemberShown, RuleShown


def me(member: Member, account: Account) -> Me:
    """Who asks, as JSON shows it."""
    return Me(
        id=member.user_id,
        name=member.name,
        role=member.role,
        account_id=account.id,
        account_name=account.name,
    )


def account_shown(account: Account) -> AccountShown:
    """An account as JSON shows it."""
    return AccountShown(
        id=account.id,
        name=account.name,
        monthly_tokens=account.monthly_tokens,
        created_at=utc_text(account.created_at),
    )


def member_shown(user: User) -> MemberShown:
    """A user as JSON shows him."""
    return MemberShown(
        id=user.id, name=user.name, role=user.role, created_at=utc_text(user.created_at)
    )


def _key_fields(key: Key, now_ms: int) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "key_prefix": key.prefix,
        "is_active": state(key, now_ms=now_ms) == "active",
        "intensity": key.intensity,
        "smart_detect_enabled": key.smart,
        "control": key.control,
        "concise": key.concise,
        "auto_stop": key.auto_stop,
        "rpm": key.rpm,
        "concurrency": key.concurrency,
        "created_at": utc_text(key.created_at),
        "expires_at": utc_text(key.expires_at),
        "revoked_at": utc_text(key.revoked_at),
    }


def key_shown(key: Key, *, now_ms: int, last_used_at: int | None = None) -> KeyShown:
    """A key as JSON shows it; `last_used_at` is in UTC milliseconds."""
    fields = _key_fields(key, now_ms) | {"last_used_at": utc_text(last_used_at)}
    return KeyShown(**fields)  # type: ignore[arg-type]


def key_issued(key: Key, token: str, *, now_ms: int) -> KeyIssued:
    """A new key as JSON shows it, once."""
    return KeyIssued(raw_key=token, **_key_fields(key, now_ms))  # type: ignore[arg-type]


def rule_shown(rule: Rule) -> RuleShown:
    """A rule as JSON shows it."""
    return RuleShown(
        id=rule.id,
        action=rule.action,
        pattern=rule.pattern,
        priority=rule.priority,
        created_at=utc_text(rule.created_at),
    )
