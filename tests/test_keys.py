"""Keys: the format of contract §2, the keyed hash, the server's secret."""

import hmac
import re
import stat
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mintoken import keys
from mintoken.errors import ConfigError
from mintoken.keys import hash_key, is_well_formed, mint_key, prefix, server_secret

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY = mint_key()


def test_a_key_is_46_characters_and_one_word() -> None:
    assert len(KEY) == 46
    assert re.fullmatch(r"mt_live_[0-9A-Za-z]{38}", KEY)
    assert re.fullmatch(r"\w+", KEY)


def test_the_last_six_characters_are_the_crc32_of_all_before_in_base_62() -> None:
    number = 0
    for character in KEY[-6:]:
        number = number * 62 + ALPHABET.index(character)
    assert number == zlib.crc32(KEY[:-6].encode())


def test_a_key_comes_of_the_randomness_that_is_passed_in() -> None:
    draws = iter([0, 9, 10, 35, 36, 61] + [0] * 26)
    assert mint_key(lambda below: next(draws)).startswith("mt_live_09AZaz" + "0" * 26)


def test_a_small_checksum_is_padded_to_six_characters() -> None:
    for last in range(62 * 20):
        draws = iter([0] * 30 + [last // 62, last % 62])
        key = mint_key(lambda _, draws=draws: next(draws))
        assert len(key) == 46
        assert is_well_formed(key)


def test_a_longer_word_with_a_right_checksum_is_not_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_RANDOM_CHARACTERS", 33)
    assert not is_well_formed(mint_key())


def test_two_keys_differ() -> None:
    assert len({mint_key() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "token",
    [
        "",
        "mt_live_",
        KEY[:-1],
        KEY + "0",
        KEY + "\n",
        " " + KEY,
        KEY.upper(),
        KEY.replace("live", "test"),
        "sk-" + KEY[3:],
        KEY[:-7] + ("x" if KEY[-7] != "x" else "y") + KEY[-6:],
        KEY[:-1] + "é",
        KEY[:-1] + "١",
        KEY[:-1] + "\udcff",
    ],
)
def test_what_is_not_a_key_is_not_well_formed(token: str) -> None:
    assert not is_well_formed(token)


@given(st.integers(8, 45), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    changed = KEY[:place] + character + KEY[place + 1 :]
    assert is_well_formed(changed) == (changed == KEY)


def test_the_hash_is_an_hmac_sha256_under_the_secret() -> None:
    secret = b"s" * 32
    assert hash_key(secret, KEY) == hmac.new(secret, KEY.encode(), "sha256").digest()
    assert hash_key(b"t" * 32, KEY) != hash_key(secret, KEY)


def test_hashing_takes_any_text() -> None:
    assert len(hash_key(b"s" * 32, "\udcff")) == 32


def test_the_prefix_shows_four_random_characters() -> None:
    assert prefix(KEY) == KEY[:12]


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    secret = server_secret(tmp_path)
    assert len(secret) == 32
    assert server_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / "server_secret").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["server_secret"]


def test_many_first_starts_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    together, found = threading.Barrier(16), []

    def start() -> None:
        together.wait()
        found.append(server_secret(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert set(found) == {(tmp_path / "server_secret").read_bytes()}
    assert [file.name for file in tmp_path.iterdir()] == ["server_secret"]


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_secret_of_the_wrong_size_is_refused_and_kept(tmp_path: Path, size: int) -> None:
    file = tmp_path / "server_secret"
    file.write_bytes(b"x" * size)
    with pytest.raises(ConfigError, match=f"holds {size} bytes.*backup"):
        server_secret(tmp_path)
    assert file.read_bytes() == b"x" * size


def test_a_missing_data_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        server_secret(tmp_path / "nowhere")
