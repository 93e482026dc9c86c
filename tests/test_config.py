"""The configuration: contract §8, every option, every problem at once."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mintoken.config import KINDS, SECTIONS, Address, Config, load_config
from mintoken.errors import ConfigError
from mintoken.models import Enforcement, QuotaCounts

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
OPTIONS = [(section, name) for section, kinds in KINDS.items() for name in kinds]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No config.toml of the developer's is read by accident."""
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mintoken.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(path: Path | None = None, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ)
    return caught.value.problems


def value_of(config: Config, section: str, name: str) -> Any:
    return getattr(getattr(config, section), name)


# --- Where it comes from ------------------------------------------------------------------------


def test_it_starts_with_no_config_at_all() -> None:
    config = load_config(None, {})
    assert config == Config()
    assert str(config.server.listen) == "127.0.0.1:8787"
    assert str(config.server.admin_listen) == "127.0.0.1:8788"
    assert config.upstream.base_url == "https://api.openai.com/v1"
    assert config.quota.counts is QuotaCounts.OUTPUT


def test_a_named_file_wins_over_the_variable_which_wins_over_the_usual_place(
    tmp_path: Path,
) -> None:
    for name in ("named", "variable", "config"):
        (tmp_path / f"{name}.toml").write_text(f'[storage]\ndata_dir = "{name}"')
    environ = {"MINTOKEN_CONFIG": "variable.toml"}
    assert load_config(Path("named.toml"), environ).storage.data_dir == Path("named")
    assert load_config(None, environ).storage.data_dir == Path("variable")
    assert load_config(None, {}).storage.data_dir == Path("config")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\ndrain_timeout = 1\nbody_timeout = 2")
    config = load_config(file, {"MINTOKEN_SERVER_DRAIN_TIMEOUT": "3.5"})
    assert (config.server.drain_timeout, config.server.body_timeout) == (3.5, 2.0)


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_every_option_can_be_set_in_the_environment(section: str, name: str) -> None:
    default = value_of(Config(), section, name)
    variable = f"MINTOKEN_{section.upper()}_{name.upper()}"
    assert value_of(load_config(None, {variable: str(default)}), section, name) == default
    assert f"{section}.{name}" in problems(None, **{variable: ""})[0]


def test_the_operators_vocabulary_directory_is_taken_from_tiktokens_variable() -> None:
    assert load_config(None, {"TIKTOKEN_CACHE_DIR": "/x"}).tiktoken_cache_dir == Path("/x")
    assert load_config(None, {"TIKTOKEN_CACHE_DIR": ""}).tiktoken_cache_dir is None


def test_variables_of_other_things_are_left_alone() -> None:
    environ = {"MINTOKEN_CONFIG": "", "MINTOKEN_SERVICE_HOST": "10.0.0.1", "SERVER_LISTEN": "x"}
    assert load_config(None, environ) == Config()


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, "\ufeff[server]\nbody_timeout = 2")
    assert load_config(file, {}).server.body_timeout == 2.0


def test_a_named_file_that_is_missing_or_unreadable_is_a_problem(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert problems(missing) == [f"{missing}: cannot be read: No such file or directory"]
    assert problems(None, MINTOKEN_CONFIG=str(missing)) == problems(missing)
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]
    (tmp_path / "latin1.toml").write_bytes(b"# \xe9")
    assert "UTF-8" in problems(tmp_path / "latin1.toml")[0]


# --- What it takes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "name", "given", "value"),
    [
        ("server", "listen", '"0.0.0.0:80"', Address("0.0.0.0", 80)),
        ("server", "listen", '"[::1]:0"', Address("::1", 0)),
        ("server", "listen", '"localhost:65535"', Address("localhost", 65535)),
        ("server", "workers", "4", 4),
        ("server", "drain_timeout", "0", 0.0),
        ("server", "write_timeout", "0.05", 0.05),
        ("upstream", "base_url", '"http://127.0.0.1:9/v1/"', "http://127.0.0.1:9/v1"),
        ("upstream", "base_url", '"HTTPS://[::1]:9"', "HTTPS://[::1]:9"),
        ("upstream", "keepalive_after", "0", 0.0),
        ("upstream", "ask_stream_usage", "true", True),
        ("upstream", "ask_stream_usage", "false", False),
        ("storage", "data_dir", '"/var/lib/mintoken"', Path("/var/lib/mintoken")),
        ("quota", "counts", '"total"', QuotaCounts.TOTAL),
        ("quota", "enforcement", '"strict"', Enforcement.STRICT),
        ("quota", "notice_at", "1", 1.0),
    ],
)
def test_good_values_are_taken(
    tmp_path: Path, section: str, name: str, given: str, value: object
) -> None:
    config = load_config(written(tmp_path, f"[{section}]\n{name} = {given}"), {})
    assert value_of(config, section, name) == value
    assert type(value_of(config, section, name)) is type(value)


@pytest.mark.parametrize(
    ("section", "name", "given", "says"),
    [
        ("server", "listen", '"localhost"', "host:port"),
        ("server", "listen", '":8787"', "host:port"),
        ("server", "listen", '"::1:8787"', "host:port"),
        ("server", "listen", '"[::x]:1"', "IPv6"),
        ("server", "listen", '"1.2.3.999:1"', "host:port"),
        ("server", "listen", '"a:65536"', "65535"),
        ("server", "listen", '"http://a:1"', "host:port"),
        ("server", "listen", "8787", "host:port"),
        ("server", "workers", "65", "from 1 to 64"),
        ("server", "workers", "true", "whole number"),
        ("server", "workers", '"1"', "whole number"),
        ("server", "max_body_bytes", "1.5", "whole number"),
        ("server", "max_body_bytes", "0", "from 1024"),
        ("server", "body_timeout", "0", "from 0.01"),
        ("server", "body_timeout", "-1", "seconds"),
        ("server", "body_timeout", "inf", "seconds"),
        ("server", "body_timeout", "nan", "seconds"),
        ("server", "body_timeout", "true", "seconds"),
        ("server", "body_timeout", '"1"', "seconds"),
        ("upstream", "base_url", '"api.openai.com/v1"', "http or https"),
        ("upstream", "base_url", '"ftp://api.openai.com"', "http or https"),
        ("upstream", "base_url", '"https://"', "host"),
        ("upstream", "base_url", '"https://a:99999"', "host"),
        ("upstream", "base_url", '"https://a b/v1"', "URL"),
        ("upstream", "base_url", '"https://a/v1?x=1"', "query"),
        ("upstream", "base_url", '"https://a/v1#x"', "fragment"),
        ("upstream", "base_url", "1", "URL"),
        ("upstream", "ask_stream_usage", "1", "true or false"),
        ("upstream", "ask_stream_usage", '"yes"', "true or false"),
        ("storage", "data_dir", '""', "path"),
        ("storage", "data_dir", "1", "path"),
        ("quota", "counts", '"input"', '"output" or "total"'),
        ("quota", "counts", "[]", '"output" or "total"'),
        ("quota", "enforcement", "true", '"soft" or "strict"'),
        ("quota", "notice_at", "80", "from 0 to 1"),
    ],
)
def test_bad_values_are_named_with_what_is_allowed(
    tmp_path: Path, section: str, name: str, given: str, says: str
) -> None:
    (problem,) = problems(written(tmp_path, f"[{section}]\n{name} = {given}"))
    assert problem.startswith(f"{section}.{name}: ")
    assert says in problem


def test_a_password_in_the_upstream_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    for url in (
        "https://me:sk-canary@host/v1",
        "https://sk-canary@host",
        "sk-canary",
        "//sk-canary",
    ):
        (problem,) = problems(written(tmp_path, f'[upstream]\nbase_url = "{url}"'))
        assert "canary" not in problem
        assert "canary" not in problems(None, MINTOKEN_UPSTREAM_BASE_URL=url)[0]


def test_long_values_are_shown_shortened() -> None:
    (problem,) = problems(None, MINTOKEN_QUOTA_COUNTS="x" * 10_000)
    assert len(problem) < 200


def test_the_budget_of_bodies_holds_at_least_one(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "[server]\nmax_buffered_bytes = 2048"))
    assert "max_body_bytes" in problem


# --- What it says -------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        listen = "127.0.0.1:1"
        [server]
        listen = "x"
        workerz = 1
        [upstreams]
        [quota]
        counts = "none"
        """,
    )
    found = problems(file, MINTOKEN_UPSTREAM_IDLE_TIMEOUT="soon", MINTOKEN_QUOTA_NOTICE="1")
    assert [problem.partition(":")[0] for problem in found] == [
        "listen",
        "[upstreams]",
        "server.listen",
        "server.workerz",
        "quota.counts",
        "quota.notice (from MINTOKEN_QUOTA_NOTICE)",
        "upstream.idle_timeout (from MINTOKEN_UPSTREAM_IDLE_TIMEOUT)",
    ]
    assert str(ConfigError(found)).count("\n") == len(found) - 1


def test_near_misses_are_recognized(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "[server]\nlissten = 1\n[qouta]\n"))
    assert found == [
        "[qouta]: unknown section; did you mean quota?",
        "server.lissten: unknown option; did you mean listen?",
    ]
    (problem,) = problems(None, MINTOKEN_QUOTA_XYZ="1")
    assert problem.endswith("known are counts, enforcement, notice_at")


def test_a_syntax_error_is_named_with_its_line_beside_the_other_problems(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "[server]\n\nlisten = \n"), MINTOKEN_SERVER_WORKERS="99")
    assert len(found) == 2
    assert "TOML" in found[0]
    assert "line 3" in found[0]


# --- The example --------------------------------------------------------------------------------


def test_the_example_loads_to_the_defaults() -> None:
    assert load_config(EXAMPLE, {}) == Config()


def test_the_example_mentions_every_option_with_a_comment_before_it() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    content = tomllib.loads("\n".join(lines))
    assert [(section, name) for section, table in content.items() for name in table] == OPTIONS
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), f"{line} is not explained"


def test_every_section_is_in_the_table() -> None:
    names = [field.name for field in fields(Config)]
    assert names == [*SECTIONS, "tiktoken_cache_dir"]


def test_addresses_read_back_as_they_are_written() -> None:
    assert str(Address("::1", 80)) == "[::1]:80"
    assert str(Address("localhost", 0)) == "localhost:0"
