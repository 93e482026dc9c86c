"""The configuration: every option in one table, every problem reported at once."""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints
from urllib.parse import urlsplit

from mintoken.errors import ConfigError
from mintoken.models import Enforcement, QuotaCounts

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind:
    """What an option takes: `read` makes its value of a TOML value or raises ValueError.

    It annotates the option's field, so a new option is one line here and one in the example file.
    """

    read: Callable[[object], Any]
    is_number: bool = False


def whole(low: int, high: int, why: str = "") -> Kind:
    """A whole number from `low` to `high`."""

    def read(value: object) -> int:
        if type(value) is int and low <= value <= high:
            return value
        allowed = f"from {low} to {high}" if low < high else f"{low}"
        raise ValueError(f"{_shown(value)} is not allowed; a whole number {allowed} is{why}")

    return Kind(read, is_number=True)


def number(low: float, high: float, unit: str) -> Kind:
    """A number from `low` to `high`; inf and nan are not."""

    def read(value: object) -> float:
        if type(value) in (int, float) and low <= cast(float, value) <= high:
            return float(cast(float, value))
        raise ValueError(f"{_shown(value)} is not allowed; a number from {low} to {high}{unit} is")

    return Kind(read, is_number=True)


def seconds(low: float, high: float) -> Kind:
    """A time in seconds."""
    return number(low, high, " seconds")


def one_of(choices: type[StrEnum]) -> Kind:
    """One of the values of an enum."""

    def read(value: object) -> StrEnum:
        try:
            return choices(cast(str, value))
        except ValueError:
            allowed = " or ".join(f'"{choice}"' for choice in choices)
            raise ValueError(f"{_shown(value)} is not known; {allowed} is") from None

    return Kind(read)


def _read_flag(value: object) -> bool:
    flag = {"true": True, "false": False}.get(str(value).lower())
    if flag is None:
        raise ValueError(f"{_shown(value)} is not allowed; true or false is")
    return flag


def _read_address(value: object) -> Address:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", str(value))
    try:
        if not isinstance(value, str) or match is None or int(match[3]) > 65535:
            raise ValueError
        if match[1]:
            return Address(str(ipaddress.IPv6Address(match[1])), int(match[3]))
        if re.fullmatch(r"[0-9.]+", match[2]):
            ipaddress.IPv4Address(match[2])
    except ValueError:
        raise ValueError(
            f"{_shown(value)} is no address; host:port or [IPv6]:port is, port 0 to 65535"
        ) from None
    return Address(match[2], int(match[3]))


def _read_base_url(value: object) -> str:
    """The value is never shown: it may hold a password."""
    allowed = '; an http or https URL with a host, like "https://api.openai.com/v1", is allowed'
    if not isinstance(value, str) or re.search(r"[\s\x00-\x1f\x7f\\]", value):
        raise ValueError(f"this is no URL{allowed}")
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"this is no URL of a provider{allowed}")
    if "@" in url.netloc:
        raise ValueError(f"a user or password in the URL is not taken{allowed}")
    if "?" in value or "#" in value:
        raise ValueError(f"a query or fragment in the URL is not taken{allowed}")
    return value.rstrip("/")


def _read_directory(value: object) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{_shown(value)} is no directory; its path as text is allowed")
    return Path(value)


ADDRESS, BASE_URL, DIRECTORY = Kind(_read_address), Kind(_read_base_url), Kind(_read_directory)
FLAG = Kind(_read_flag)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """`[server]`: times in seconds, sizes in bytes."""

    listen: Annotated[Address, ADDRESS] = Address("127.0.0.1", 8787)
    admin_listen: Annotated[Address, ADDRESS] = Address("127.0.0.1", 8788)
    workers: Annotated[int, whole(1, 64)] = 1
    max_connections: Annotated[int, whole(1, 1_000_000)] = 10_000
    max_body_bytes: Annotated[int, whole(1024, 1024 * MIB)] = 32 * MIB
    max_buffered_bytes: Annotated[int, whole(1024, 1024 * 1024 * MIB)] = 256 * MIB
    header_timeout: Annotated[float, seconds(0.01, 3600)] = 15.0
    body_timeout: Annotated[float, seconds(0.01, 3600)] = 60.0
    write_timeout: Annotated[float, seconds(0.01, 3600)] = 60.0
    drain_timeout: Annotated[float, seconds(0, 86400)] = 120.0
    slow_callback_ms: Annotated[float, number(0, 60_000, " milliseconds")] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """`[upstream]`: times in seconds; `base_url` ends without a slash."""

    base_url: Annotated[str, BASE_URL] = "https://api.openai.com/v1"
    connect_timeout: Annotated[float, seconds(0.01, 3600)] = 5.0
    first_byte_timeout: Annotated[float, seconds(0.01, 86400)] = 120.0
    idle_timeout: Annotated[float, seconds(0.01, 86400)] = 120.0
    keepalive_after: Annotated[float, seconds(0, 86400)] = 15.0
    ask_stream_usage: Annotated[bool, FLAG] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """`[storage]`."""

    data_dir: Annotated[Path, DIRECTORY] = Path("data")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """`[quota]`; `notice_at` is a share of the limit."""

    counts: Annotated[QuotaCounts, one_of(QuotaCounts)] = QuotaCounts.OUTPUT
    enforcement: Annotated[Enforcement, one_of(Enforcement)] = Enforcement.SOFT
    notice_at: Annotated[float, number(0, 1, "")] = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that an operator can set, read once."""

    server: ServerConfig = field(default_factory=ServerConfig)
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    quota: QuotaConfig = field(default_factory=QuotaConfig)
    tiktoken_cache_dir: Path | None = None


SECTIONS: Mapping[str, type[Any]] = {
    "server": ServerConfig,
    "upstream": UpstreamConfig,
    "storage": StorageConfig,
    "quota": QuotaConfig,
}
KINDS: Mapping[str, Mapping[str, Kind]] = {
    section: {
        name: hint.__metadata__[0]
        for name, hint in get_type_hints(cls, include_extras=True).items()
    }
    for section, cls in SECTIONS.items()
}


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration by contract §8: built-in defaults < file < environment.

    The file is `path`, else $MINTOKEN_CONFIG, else ./config.toml if it is there. Raises
    ConfigError with every problem found.
    """
    problems: list[str] = []
    values: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    given = [*_from_file(_file(path, environ), problems), *_from_environment(environ)]
    for place, section, name, value in given:
        kind = KINDS[section].get(name)
        if kind is None:
            problems.append(f"{place}: unknown option{_meant(name, KINDS[section])}")
            continue
        try:
            values[section][name] = kind.read(value)
        except ValueError as error:
            problems.append(f"{place}: {error}")
    cache = environ.get("TIKTOKEN_CACHE_DIR")
    config = Config(
        **{section: cls(**values[section]) for section, cls in SECTIONS.items()},
        tiktoken_cache_dir=Path(cache) if cache else None,
    )
    if not problems and config.server.max_buffered_bytes < config.server.max_body_bytes:
        problems.append("server.max_buffered_bytes: at least server.max_body_bytes is needed")
    if problems:
        raise ConfigError(problems)
    return config


Given = tuple[str, str, str, object]
"""Where a value was found, for people; its section, its option, and the value itself."""


def _file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path
    if named := environ.get("MINTOKEN_CONFIG"):
        return Path(named)
    usual = Path("config.toml")
    return usual if usual.exists() else None


def _from_file(path: Path | None, problems: list[str]) -> Iterator[Given]:
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not text in UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: is not valid TOML: {error}")
    else:
        for section, table in content.items():
            if not isinstance(table, dict):
                problems.append(f"{section}: is no section; options stand under one, as [server]")
            elif section not in KINDS:
                problems.append(f"[{section}]: unknown section{_meant(section, KINDS)}")
            else:
                yield from ((f"{section}.{name}", section, name, table[name]) for name in table)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, text in sorted(environ.items()):
        for section, kinds in KINDS.items():
            start = f"MINTOKEN_{section.upper()}_"
            if variable.startswith(start):
                name = variable.removeprefix(start).lower()
                kind = kinds.get(name)
                value = _number(text) if kind is not None and kind.is_number else text
                yield f"{section}.{name} (from {variable})", section, name, value


def _number(text: str) -> object:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _meant(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
