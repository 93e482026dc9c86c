"""The configuration: every option in one table, every problem reported at once."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from mintoken.errors import ConfigError
from mintoken.models import Enforcement, QuotaCounts
from mintoken.options import (
    ADDRESS,
    BASE_URL,
    FLAG,
    PATH,
    Address,
    Kind,
    number,
    one_of,
    seconds,
    whole,
)

MIB = 1024 * 1024
PUBLIC, ADMIN = Address("127.0.0.1", 8787), Address("127.0.0.1", 8788)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """`[server]`: times in seconds, sizes in bytes."""

    listen: Annotated[Address, ADDRESS] = PUBLIC
    admin_listen: Annotated[Address, ADDRESS] = ADMIN
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

    data_dir: Annotated[Path, PATH] = Path("data")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """`[quota]`; `notice_at` is a share of the limit."""

    counts: Annotated[QuotaCounts, one_of(QuotaCounts)] = QuotaCounts.OUTPUT
    enforcement: Annotated[Enforcement, one_of(Enforcement)] = Enforcement.SOFT
    notice_at: Annotated[float, number(0, 1, "")] = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingsConfig:
    """`[savings]`; `prices` as `pricing.load_prices` takes it, `review_every` in seconds."""

    prices: Annotated[Path, PATH] = Path("built-in")
    review_every: Annotated[float, seconds(0.1, 86400)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """`[admin]`: who signs in on the admin listener; times in seconds."""

    tls: Annotated[bool, FLAG] = False
    session_idle: Annotated[float, seconds(1, 86400 * 30)] = 3600.0
    session_limit: Annotated[float, seconds(1, 86400 * 365)] = 43200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that an operator can set, read once."""

    server: ServerConfig = field(default_factory=ServerConfig)
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    quota: QuotaConfig = field(default_factory=QuotaConfig)
    savings: SavingsConfig = field(default_factory=SavingsConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    tiktoken_cache_dir: Path | None = None


SECTIONS: Mapping[str, type[Any]] = {
    "server": ServerConfig,
    "upstream": UpstreamConfig,
    "storage": StorageConfig,
    "quota": QuotaConfig,
    "savings": SavingsConfig,
    "admin": AdminConfig,
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
