"""The units in deploy/: systemd takes them, they are tight, and they agree with the program."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mintoken.cli import MISCONFIGURED
from mintoken.config import Config
from mintoken.server import LAST_CALL_S, LAST_WORDS_S

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = ("mintoken.service", "mintoken.socket")


def analyze(*arguments: object) -> str:
    """What `systemd-analyze` says; it needs no running systemd. Its failure is the test's."""
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not there; `make programs` installs it or says how to")
    command = [program, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def values(unit: str, option: str) -> list[str]:
    return re.findall(rf"^{option}=(.*)$", (DEPLOY / unit).read_text(), re.M)


def test_systemd_takes_them(tmp_path: Path) -> None:
    # All but the program, which is only where the service is installed.
    for unit in UNITS:
        text = (DEPLOY / unit).read_text().replace("/opt/mintoken/bin/python", sys.executable)
        (tmp_path / unit).write_text(text)
    assert analyze("verify", *(tmp_path / unit for unit in UNITS)) == ""


def test_the_service_is_exposed_little() -> None:
    assert "OK" in analyze("security", "--offline=yes", "--threshold=15", DEPLOY / UNITS[0])


def test_the_sockets_are_the_default_addresses_the_public_one_first() -> None:
    server = Config().server
    assert values("mintoken.socket", "ListenStream") == [
        str(server.listen),
        str(server.admin_listen),
    ]


def test_it_is_given_the_time_to_drain() -> None:
    [seconds] = values("mintoken.service", "TimeoutStopSec")
    assert int(seconds) > LAST_CALL_S + Config().server.drain_timeout + LAST_WORDS_S


def test_a_wrong_configuration_is_not_started_again() -> None:
    assert values("mintoken.service", "RestartPreventExitStatus") == [str(MISCONFIGURED)]
