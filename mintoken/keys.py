"""Mintoken's own keys: their format and checksum, their keyed hash, and the server's secret."""

import hmac
import re
import secrets
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mintoken.errors import ConfigError
from mintoken.files import new_file

SECRET_FILE = "server_secret"  # noqa: S105 - the file's name
SECRET_BYTES = 32

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LIVE, ADMIN = "mt_live_", "mt_admin_"
"""How the keys of applications begin, and those of scripts that administer."""
_RANDOM_CHARACTERS = 32
_CHECKSUM_CHARACTERS = 6
_FORMAT = re.compile(rf"[0-9A-Za-z]{{{_RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS}}}")


def mint_key(random_below: Callable[[int], int] = secrets.randbelow, *, start: str = LIVE) -> str:
    """A fresh key (contract §2); `random_below(n)` draws from 0 to n - 1."""
    characters = (_ALPHABET[random_below(len(_ALPHABET))] for _ in range(_RANDOM_CHARACTERS))
    body = start + "".join(characters)
    return body + _checksum(body)


def is_well_formed(token: str, *, start: str = LIVE) -> bool:
    """Does it have a key's format and checksum? Says nothing about whether the key exists."""
    if not token.startswith(start) or _FORMAT.fullmatch(token, len(start)) is None:
        return False
    body, checksum = token[:-_CHECKSUM_CHARACTERS], token[-_CHECKSUM_CHARACTERS:]
    return _checksum(body) == checksum


def hash_key(secret: bytes, token: str) -> bytes:
    """The only form in which a key is stored: its HMAC-SHA256 under the server's secret."""
    return hmac.digest(secret, token.encode(errors="surrogatepass"), "sha256")


def prefix(token: str) -> str:
    """The part of a key that is kept for display."""
    return token[:12]


def server_secret(data_dir: Path, *, expected: bool = False) -> bytes:
    """The secret of this data directory (32 bytes), made on the first start unless `expected`.

    Raises ConfigError when it is missing though expected, or holds anything else: the keys in the
    database are then of no use, and a new secret would hide that. Raises OSError when it cannot be
    read or written.
    """
    path = data_dir / SECRET_FILE
    if not path.exists():
        if expected:
            raise ConfigError(
                [
                    f"{path} is missing, and the keys in the database are of no use without it. "
                    "Restore it from a backup, or revoke every key to start with a new one."
                ]
            )
        with suppress(FileExistsError):  # Whoever links first wins.
            _write_new(path, secrets.token_bytes(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            [
                f"{path} holds {len(secret)} bytes, a server secret has {SECRET_BYTES}. "
                "Restore it from a backup; if you delete it, every key has to be created anew."
            ]
        )
    return secret


def copy_secret(data_dir: Path, target: Path) -> bool:
    """Copy the secret to a file of its own (mode 0600); False if one is there that holds the same.

    Raises FileExistsError if the target holds something else, and OSError.
    """
    secret = (data_dir / SECRET_FILE).read_bytes()
    try:
        _write_new(target, secret)
    except FileExistsError:
        if target.read_bytes() != secret:
            raise
        return False
    return True


def _write_new(path: Path, secret: bytes) -> None:
    with new_file(path) as draft:
        draft.write_bytes(secret)


def _checksum(body: str) -> str:
    """CRC32 in base 62, most significant digit first."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
