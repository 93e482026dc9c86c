"""What the control plane takes and gives: the shapes of its JSON, which also describe it."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from mintoken.admin import MONTHLY_TOKENS_LIMIT, NAME_CHARACTERS, NEVER, KeySettings
from mintoken.arms import MOST_CONTROL
from mintoken.models import Intensity, RuleAction
from mintoken.passwords import LONGEST, SHORTEST
from mintoken.people import Role
from mintoken.rules import MAX_CHARACTERS, MAX_PRIORITY
from mintoken.usage_shown import Time

LIMIT = 10**9
LONGEST_OVERLAP_S = 90 * 86_400
TRIED_CHARACTERS = 32_768

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
Count = Annotated[int, Meta(ge=0, le=LIMIT, description="0 is no limit.")]
Percent = Annotated[int, Meta(ge=0, le=MOST_CONTROL, description="Percent of conversations.")]
Moment = Annotated[datetime, Meta(tz=True)]


class Given(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that is taken; a field that is not named here is refused."""


class Shown(Struct, frozen=True, kw_only=True):
    """A body that is given."""


class SignIn(Given, frozen=True, kw_only=True):
    """Who wants to sign in."""

    name: str
    password: Annotated[str, Meta(max_length=LONGEST)]

    def __repr__(self) -> str:
        return "SignIn(...)"


class PasswordChange(Given, frozen=True, kw_only=True):
    """A new password of who asks, who shows by the present one that it is he."""

    current_password: Annotated[str, Meta(max_length=LONGEST)]
    new_password: Annotated[str, Meta(min_length=SHORTEST, max_length=LONGEST)]

    def __repr__(self) -> str:
        return "PasswordChange(...)"


class Me(Shown, frozen=True, kw_only=True):
    """Who asks: a user, or an admin key."""

    id: str
    name: str
    role: Role
    account_id: str
    account_name: str


class AccountShown(Shown, frozen=True, kw_only=True):
    """An account; `monthly_tokens` 0 is unlimited."""

    id: str
    name: str
    monthly_tokens: int
    created_at: Time | None


class AccountChange(Given, frozen=True, kw_only=True):
    """What is to change of an account."""

    monthly_tokens: Annotated[int, Meta(ge=0, le=MONTHLY_TOKENS_LIMIT)]


class MemberShown(Shown, frozen=True, kw_only=True):
    """A user of the account."""

    id: str
    name: str
    role: Role
    created_at: Time | None


class MemberList(Shown, frozen=True, kw_only=True):
    """The users of the account, the oldest first."""

    data: list[MemberShown]


class MemberCreate(Given, frozen=True, kw_only=True):
    """A new user of the account."""

    name: Name
    role: Role
    password: Annotated[str, Meta(min_length=SHORTEST, max_length=LONGEST)]

    def __repr__(self) -> str:
        return "MemberCreate(...)"


class KeyShown(Shown, frozen=True, kw_only=True):
    """A key of the account, without its secret."""

    id: str
    name: str
    key_prefix: str
    is_active: bool
    intensity: Intensity
    smart_detect_enabled: bool
    control: int
    concise: int
    auto_stop: bool
    rpm: int
    concurrency: int
    created_at: Time | None
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None = None


class KeyIssued(KeyShown, frozen=True, kw_only=True):
    """A new key with its secret, which is shown this one time."""

    raw_key: str

    def __repr__(self) -> str:
        return "KeyIssued(...)"


class KeyList(Shown, frozen=True, kw_only=True):
    """The keys of the account, the oldest first, ended ones too."""

    data: list[KeyShown]


class KeyChange(Given, frozen=True, kw_only=True):
    """What is to change of a key; `expires_at` null is never."""

    name: Name | UnsetType = UNSET
    intensity: Intensity | UnsetType = UNSET
    smart_detect_enabled: bool | UnsetType = UNSET
    control: Percent | UnsetType = UNSET
    concise: Percent | UnsetType = UNSET
    auto_stop: bool | UnsetType = UNSET
    rpm: Count | UnsetType = UNSET
    concurrency: Count | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET

    def settings(self) -> KeySettings:
        """The same as `admin` takes it."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        given = {_SETTINGS.get(n, n): value for n, value in given.items() if value is not UNSET}
        if "expires_at" in given:
            given["expires_at"] = _utc_ms(given["expires_at"])
        return KeySettings(**given)


_SETTINGS = {"smart_detect_enabled": "smart"}


class KeyCreate(KeyChange, frozen=True, kw_only=True):
    """A new key; without a name it gets the next free one."""

    smart_detect_enabled: bool = True


class KeyRotation(Given, frozen=True, kw_only=True):
    """How long the old key still works."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=LONGEST_OVERLAP_S)] = 86_400


class RuleShown(Shown, frozen=True, kw_only=True):
    """A rule of the account."""

    id: str
    action: RuleAction
    pattern: str
    priority: int
    created_at: Time | None


class RuleList(Shown, frozen=True, kw_only=True):
    """The rules of the account, the oldest first."""

    data: list[RuleShown]


class RuleCreate(Given, frozen=True, kw_only=True):
    """A new rule of the account; `pattern` is of RE2's syntax."""

    action: RuleAction
    pattern: Annotated[str, Meta(min_length=1, max_length=MAX_CHARACTERS)]
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0


class RuleTry(Given, frozen=True, kw_only=True):
    """A text to try the rules on, as the key of this id would send it."""

    text: Annotated[str, Meta(max_length=TRIED_CHARACTERS)]
    key_id: str | None = None


class RulesTried(Shown, frozen=True, kw_only=True):
    """What the text would get; the rules that match, the one that wins first.

    `intensity` and `reason` are null where it is up to the key and none was named. `detected` is
    what smart detection alone would say.
    """

    intensity: Intensity | None
    reason: str | None
    detected: str | None
    matching: list[RuleShown]


class Failure(Shown, frozen=True, kw_only=True):
    """What is wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str


class FailureShown(Shown, frozen=True, kw_only=True):
    """The body of every error."""

    error: Failure


def _utc_ms(moment: datetime | None) -> int:
    return NEVER if moment is None else max(0, int(moment.timestamp() * 1000))
