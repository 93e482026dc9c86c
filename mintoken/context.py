"""AppKeys, and RequestContext: the one mutable object of a request."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from aiohttp import web

from mintoken.accounts import Accounts, Owner
from mintoken.arms import NO_EXPERIMENT, Assignment
from mintoken.config import AdminConfig, Config
from mintoken.conversations import Conversations
from mintoken.errors import Code
from mintoken.exchange import Spoken
from mintoken.feed import Feed
from mintoken.ledger import Ledger
from mintoken.models import Admission, Decision, Key, Outcome, Reservation, TokenUsage
from mintoken.passwords import PasswordThread
from mintoken.people import Member, Role
from mintoken.pricing import Prices
from mintoken.prompts import NO_WORDING, Prompts, Wording
from mintoken.protocols.base import Meter
from mintoken.rates import RateLimiter
from mintoken.refusals import Refusals
from mintoken.tokens import PromptReader, Tokenizer
from mintoken.upstream import Upstream


class Access(Enum):
    """Who may ask a route. A route without a mark is CLOSED: nobody may.

    From SIGN_IN on they are on the admin listener only. SIGN_IN needs nobody who is signed in;
    VIEWER, ADMIN and OWNER are the lowest role that may ask; AS_KEY is for an ADMIN too, who asks
    the provider in the place of one of his account's keys.
    """

    OPEN = auto()
    KEY = auto()
    SIGN_IN = auto()
    VIEWER = auto()
    ADMIN = auto()
    OWNER = auto()
    AS_KEY = auto()
    CLOSED = auto()

    @property
    def role(self) -> Role | None:
        """The lowest role that may ask; None where that is not how it is decided."""
        return _ROLES.get(self)


_ROLES = {
    Access.VIEWER: Role.VIEWER,
    Access.ADMIN: Role.ADMIN,
    Access.OWNER: Role.OWNER,
    Access.AS_KEY: Role.ADMIN,
}


@dataclass(slots=True)
class ServerState:
    """What this process is doing just now."""

    leaving: bool = False
    """It takes no new connections; what is open is answered, and closed after it."""
    draining: bool = False
    """It was told to stop."""
    refusing: bool = False
    """It answers nothing new any more."""
    in_flight: int = 0
    buffered_bytes: int = 0
    """Request bodies held in memory."""


Clock = Callable[[], int]
"""UTC milliseconds."""

ACCESS: web.AppKey[dict[object, Access]] = web.AppKey("access", dict)
ACCOUNTS = web.AppKey("accounts", Accounts)
CLOCK: web.AppKey[Clock] = web.AppKey("clock", Callable)  # type: ignore[arg-type]
CONFIG = web.AppKey("config", Config)
CONVERSATIONS = web.AppKey("conversations", Conversations)
FEED = web.AppKey("feed", Feed)
LEDGER = web.AppKey("ledger", Ledger)
OPENAPI = web.AppKey("openapi", bytes)
PASSWORDS = web.AppKey("passwords", PasswordThread)
PRICES: web.AppKey[Prices] = web.AppKey("prices", Mapping)
PROMPTS = web.AppKey("prompts", Prompts)
RATES = web.AppKey("rates", RateLimiter)
REFUSALS = web.AppKey("refusals", Refusals)
SECRET = web.AppKey("secret", bytes)
STATE = web.AppKey("state", ServerState)
TOKENIZER = web.AppKey("tokenizer", Tokenizer)
UPSTREAM = web.AppKey("upstream", Upstream)


NOTHING_SPOKEN = Spoken()


@dataclass(slots=True)
class RequestContext:
    """One request's way through the house; what is not known yet is None or empty."""

    id: str
    access: Access
    started_at: int
    """UTC milliseconds."""
    started_ns: int = field(default_factory=time.monotonic_ns)
    owner: Owner | None = None
    member: Member | None = None
    """Who asks a route of the admin listener; on a SIGN_IN one, if he is signed in already."""
    provider_key: str = field(default="", repr=False)
    asked: Decision | None = None
    """The level that the caller asked for by header or query."""
    decision: Decision | None = None
    error: Code | None = None
    buffered_bytes: int = 0
    response: web.StreamResponse | None = None
    """The response once its head is on its way."""
    month: Admission | None = None
    """The account's month as this request's headers show it."""

    assignment: Assignment = NO_EXPERIMENT
    """The arm of the experiment that it is in, whatever level runs."""
    injected: Wording = NO_WORDING
    """The text of ours that the body got which was sent."""
    reservation: Reservation | None = None
    prompt: PromptReader | None = None
    """Reads the prompt that was sent, for whoever has to count it."""
    asked_usage: bool = False
    """Whether the provider was asked for the usage of a stream by us, and not by the caller."""
    meter: Meter | None = None
    usage: TokenUsage | None = None
    """The tokens, where they were counted before the end."""
    outcome: Outcome = Outcome.CLIENT_CLOSED
    """How it ends if nobody comes to say otherwise."""
    status: int = 0
    first_byte_ms: int | None = None
    bytes_out: int = 0
    upstream_request_id: str = ""
    _spoken: Spoken = NOTHING_SPOKEN

    @property
    def key(self) -> Key:
        """The caller's, on a route whose access is KEY or AS_KEY."""
        assert self.owner is not None, "nobody has said who he is"
        return self.owner.key

    @property
    def asking(self) -> Member:
        """The member, on a route whose access is a role."""
        assert self.member is not None, "nobody has signed in"
        return self.member

    def elapsed_ms(self) -> int:
        """Whole milliseconds since the request came."""
        return (time.monotonic_ns() - self.started_ns) // 1_000_000

    def spoken(self) -> Spoken:
        """What the answer said so far."""
        if self.meter is not None and not self._spoken.done:
            self._spoken = self.meter.spoken()
        return self._spoken


CONTEXT = web.RequestKey("context", RequestContext)


def by_admin_listener(request: web.BaseRequest) -> bool:
    """Did it come by the admin listener? What another kind of connection brings did not."""
    return getattr(request.protocol, "is_admin", False) is True


def session_cookie(options: AdminConfig) -> str:
    """The name of the cookie with a session's id; a browser takes `__Host-` only over TLS."""
    return "__Host-mintoken_session" if options.tls else "mintoken_session"


def request_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of UTC milliseconds, then random; unique, not secret."""
    value = (now_ms & (2**48 - 1)) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
