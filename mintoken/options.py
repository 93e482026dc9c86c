"""What an option of the configuration takes, and how its value is read."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to tell a usable one
"""Hosts that only a listener can use, each with where a caller on this machine finds it."""


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


def _read_path(value: object) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{_shown(value)} is no path; a path as text is allowed")
    return Path(value)


ADDRESS, BASE_URL, PATH = Kind(_read_address), Kind(_read_base_url), Kind(_read_path)
FLAG = Kind(_read_flag)


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
