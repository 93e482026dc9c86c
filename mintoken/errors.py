"""What can go wrong, with the status and code each means to a caller."""

from collections.abc import Mapping
from enum import Enum


class Code(Enum):
    """Every error that Mintoken makes: code, HTTP status, type, and the message callers read."""

    code: str
    status: int
    type: str
    message: str

    MISSING_API_KEY = (
        "missing_api_key",
        401,
        "authentication_error",
        "No Mintoken key was given. Send it as 'Authorization: Bearer mt_live_...'.",
    )
    INVALID_API_KEY = (
        "invalid_api_key",
        401,
        "authentication_error",
        "This Mintoken key is not known. Check it, or create one with 'mintoken keys create'.",
    )
    REVOKED_API_KEY = (
        "revoked_api_key",
        401,
        "authentication_error",
        "This Mintoken key was revoked. Ask your operator for a new one.",
    )
    EXPIRED_API_KEY = (
        "expired_api_key",
        401,
        "authentication_error",
        "This Mintoken key has expired. Ask your operator for a new one.",
    )
    NOT_SIGNED_IN = (
        "not_signed_in",
        401,
        "authentication_error",
        "Sign in first, or send an admin key as 'Authorization: Bearer mt_admin_...'.",
    )
    INVALID_LOGIN = ("invalid_login", 401, "authentication_error", "Wrong name or password.")
    FORBIDDEN = ("forbidden", 403, "permission_error", "You may not do this.")
    CONFLICT = ("conflict", 409, "invalid_request_error", "This does not fit what is there.")
    INVALID_FIELD = ("invalid_field", 400, "invalid_request_error", "A field cannot be used.")
    MISSING_PROVIDER_KEY = (
        "missing_provider_key",
        400,
        "invalid_request_error",
        "No provider key was given. Send your own provider key as 'X-Provider-Key: sk-...'.",
    )
    INVALID_PROVIDER_KEY = (
        "invalid_provider_key",
        400,
        "invalid_request_error",
        "X-Provider-Key must be your provider's key: 8 to 512 printable ASCII characters "
        "without spaces, and not a Mintoken key (mt_...).",
    )
    INVALID_JSON = (
        "invalid_json",
        400,
        "invalid_request_error",
        "The request body is not a JSON object in UTF-8.",
    )
    JSON_TOO_DEEP = (
        "json_too_deep",
        400,
        "invalid_request_error",
        "The request body nests its arrays and objects too deeply.",
    )
    INVALID_INTENSITY = (
        "invalid_intensity",
        400,
        "invalid_request_error",
        "The intensity is not known. Use one of: none, lite, full, ultra.",
    )
    INVALID_PARAMETER = (
        "invalid_parameter",
        400,
        "invalid_request_error",
        "A parameter of the query cannot be used.",
    )
    DUPLICATE_HEADER = (
        "duplicate_header",
        400,
        "invalid_request_error",
        "A header that must be sent once was sent several times.",
    )
    BAD_REQUEST = (
        "bad_request",
        400,
        "invalid_request_error",
        "The request is not well-formed HTTP.",
    )
    NOT_FOUND = (
        "not_found",
        404,
        "invalid_request_error",
        "There is nothing at this path. Mintoken serves /v1/chat/completions and /v1/models.",
    )
    METHOD_NOT_ALLOWED = (
        "method_not_allowed",
        405,
        "invalid_request_error",
        "This path does not take that method. The Allow header names those it takes.",
    )
    REQUEST_TIMEOUT = (
        "request_timeout",
        408,
        "invalid_request_error",
        "The request did not arrive in time. Send it again.",
    )
    REQUEST_TOO_LARGE = (
        "request_too_large",
        413,
        "invalid_request_error",
        "The request body is larger than this server accepts.",
    )
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported_media_type",
        415,
        "invalid_request_error",
        "The body is of a type that is not taken here, or not in UTF-8.",
    )
    UNSUPPORTED_CONTENT_ENCODING = (
        "unsupported_content_encoding",
        415,
        "invalid_request_error",
        "Compressed request bodies are not supported. Send it without Content-Encoding.",
    )
    EXPECTATION_FAILED = (
        "expectation_failed",
        417,
        "invalid_request_error",
        "The only expectation supported is 'Expect: 100-continue'.",
    )
    HEADER_TOO_LARGE = (
        "header_too_large",
        431,
        "invalid_request_error",
        "The request line or a header is too large. Send shorter ones.",
    )
    INSUFFICIENT_QUOTA = (
        "insufficient_quota",
        429,
        "insufficient_quota",
        "The monthly token quota of this Mintoken account is used up. "
        "It is renewed on the first day of the month (UTC); your operator can raise it.",
    )
    RATE_LIMIT_EXCEEDED = (
        "rate_limit_exceeded",
        429,
        "rate_limit_error",
        "Too many requests. Wait as long as Retry-After says, then send this one again.",
    )
    UPSTREAM_UNREACHABLE = (
        "upstream_unreachable",
        502,
        "upstream_error",
        "The provider could not be reached.",
    )
    UPSTREAM_INVALID_RESPONSE = (
        "upstream_invalid_response",
        502,
        "upstream_error",
        "The provider's answer was not a valid one.",
    )
    UPSTREAM_REDIRECT = (
        "upstream_redirect",
        502,
        "upstream_error",
        "The provider answered with a redirect, which is not followed. "
        "Ask your operator to check upstream.base_url.",
    )
    OVERLOADED = (
        "overloaded",
        503,
        "server_error",
        "Mintoken has too much to do just now. Send the request again in a moment.",
    )
    STORAGE_UNAVAILABLE = (
        "storage_unavailable",
        503,
        "server_error",
        "Mintoken cannot record usage just now, so it takes no new requests. "
        "Send it again in a moment.",
    )
    SERVER_SHUTTING_DOWN = (
        "server_shutting_down",
        503,
        "server_error",
        "This Mintoken server is shutting down. Send the request again in a moment.",
    )
    INTERNAL_ERROR = (
        "internal_error",
        500,
        "server_error",
        "Mintoken failed on this request. Its log has the details under this request's id.",
    )
    UPSTREAM_TIMEOUT = (
        "upstream_timeout",
        504,
        "upstream_error",
        "The provider did not answer in time.",
    )
    UPSTREAM_BROKE = (
        "upstream_broke",
        502,
        "upstream_error",
        "The provider's answer broke off. What was streamed so far is not complete.",
    )

    def __init__(self, code: str, status: int, type_: str, message: str) -> None:
        self.code = code
        self.status = status
        self.type = type_
        self.message = message


class MintokenError(Exception):
    """A failure that the caller is told about.

    `detail` is appended to the code's message; it must hold nothing of the request's content.
    """

    def __init__(
        self,
        code: Code,
        detail: str = "",
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code = code
        self.message = f"{code.message} {detail}".strip()
        self.param = param
        self.headers = dict(headers or {})
        super().__init__(self.message)


class ConfigError(Exception):
    """The configuration is wrong; `problems` lists everything that is, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class StorageError(Exception):
    """The database cannot do it just now (locked, full, read-only): try again later."""


class DiskError(StorageError):
    """The disk is full or fails: this passes once somebody sees to it."""


class ForeignDatabaseError(StorageError):
    """The file is not a Mintoken database, is damaged, or is of a newer version."""


class NameTakenError(Exception):
    """An account or key of that name is there already."""


class TokenizerError(Exception):
    """The vocabulary files are missing or are not those that tiktoken expects."""


class UpstreamBrokeError(Exception):
    """The answer broke off; `rest` is what had arrived before."""

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        super().__init__("the upstream connection broke")


class InterruptedByShutdownError(Exception):
    """This server stops, so it waits for the upstream no longer."""


class EvaluationError(Exception):
    """The evaluation cannot go on; the message says why and what to do."""
