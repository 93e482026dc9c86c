"""Whole evaluations against a provider that plays a script."""

import asyncio
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import PROVIDER_CANARY, StartProxy, eventually
from fake_upstream import DIE, FakeUpstream, completion, json_reply, reply

from mintoken.cli import main
from mintoken.eval_ask import pause_s
from mintoken.eval_budget import Budget, Price
from mintoken.eval_plan import Plan, arm_texts, settings_of
from mintoken.eval_records import Arm, Question, Tokens
from mintoken.eval_set import load_set
from mintoken.evaluate import Ending, Evaluation, evaluate
from mintoken.models import Intensity

PROMPTS = """\
[[prompt]]
id = "greet"
category = "people"
system = "You greet."
user = "Say hello."
facts = [{ says = "It says hello.", any = ["hello"] }, { says = "It is there.", any = ["there"] }]
[[prompt]]
id = "sum"
category = "facts"
user = "1 + 1?"
facts = [{ says = "It is 2.", any = ["2"] }]
"""
REQUESTS = 2 * len(Arm)
AGAIN = reply(b"slow down", status="429 Too Many Requests", headers=[("Retry-After", "0")])
OK = json_reply(completion())


def error(status: str, message: str = "no", code: str = "x") -> bytes:
    return json_reply({"error": {"message": message, "code": code}}, status=status)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.toml"
    path.write_text(PROMPTS)
    return path


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


class Command:
    """`mintoken eval` as a process, with a model, prompts and limits."""

    def __init__(self, cwd: Path, upstream: FakeUpstream, prompts: Path) -> None:
        self.cwd = cwd
        self.defaults = (
            "--model", "gpt-4o", "--prompts", str(prompts), "--base-url", upstream.base_url,
            "--concurrency", "1",
        )  # fmt: skip
        self.key = {"MINTOKEN_PROVIDER_KEY": PROVIDER_CANARY}

    async def begin(self, *options: str, limit: tuple[str, ...] = ("--max-usd", "1")):
        pipe = asyncio.subprocess.PIPE
        priced = ("--price", "2.5,10") if limit else ()
        environ = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "mintoken", "eval", *self.defaults, *limit,
            *priced, *options, cwd=self.cwd, env=environ | self.key,
            stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        )  # fmt: skip

    async def __call__(self, *options: str, limit: tuple[str, ...] = ("--max-usd", "1")) -> Ran:
        return await self.end(await self.begin(*options, limit=limit))

    async def end(self, process) -> Ran:
        out, err = await asyncio.wait_for(process.communicate(), 60)
        for file in (path for path in self.cwd.rglob("*") if path.is_file()):
            assert PROVIDER_CANARY.encode() not in file.read_bytes()
        for text in (out, err):
            assert PROVIDER_CANARY.encode() not in text
            assert b"Traceback" not in text
        return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
def command(tmp_path: Path, upstream: FakeUpstream, prompts: Path) -> Command:
    return Command(tmp_path, upstream, prompts)


@dataclass
class Here:
    """The same in this process."""

    plan: Plan
    url: str
    said: list[str]

    async def __call__(self, **changes: object) -> Evaluation:
        self.plan = replace(self.plan, **changes)
        return await evaluate(
            self.plan, PROVIDER_CANARY, self.url, show=lambda *_: None, tell=self.said.append
        )


@pytest.fixture
def here(tmp_path: Path, upstream: FakeUpstream, prompts: Path) -> Here:
    asked = load_set(prompts)
    settings = settings_of(asked, base_url=upstream.base_url, model="gpt-4o", cap=100, judge="")
    plan = Plan(
        settings=settings, prompts=asked, runs=1, budget=Budget(), concurrency=1,
        folder=tmp_path / "out",
    )  # fmt: skip
    return Here(plan, upstream.base_url, [])


def system_of(body: bytes) -> str:
    return "".join(m["content"] for m in json.loads(body)["messages"] if m["role"] == "system")


async def test_the_provider_gets_the_very_bytes_that_it_gets_through_the_proxy(
    here: Here, upstream: FakeUpstream, start_proxy: StartProxy
) -> None:
    await here()
    bodies = [one.body for one in upstream.requests]
    assert len(bodies) == REQUESTS
    proxy = await start_proxy()
    for start in (0, len(Arm)):
        of_arm = dict(zip(Arm, bodies[start : start + len(Arm)], strict=True))
        for level in Intensity:
            await proxy.post(of_arm[Arm.NONE], X_Mintoken_Intensity=level.value)
            assert upstream.requests[-1].body == of_arm[Arm(level.value)]
        assert system_of(of_arm[Arm.BRIEF]).endswith("Be brief.")
        assert "Be brief." not in system_of(of_arm[Arm.NONE])


async def test_it_prints_a_table_and_writes_a_page_and_all_figures(
    command: Command, upstream: FakeUpstream
) -> None:
    ran = await command("--runs", "2")
    assert (ran.code, ran.err) == (0, "")
    assert len(upstream.requests) == 2 * REQUESTS
    assert {r.header("Authorization") for r in upstream.requests} == {f"Bearer {PROVIDER_CANARY}"}
    assert "ultra" in ran.out
    assert "Spent: $0.0011 of $1.0000." in ran.out
    assert "mintoken-eval/report.html" in ran.out
    folder = command.cwd / "mintoken-eval"
    found = json.loads((folder / "report.json").read_text())
    assert found["complete"]
    assert found["compared"] == 4
    assert [arm["coverage"]["value"] for arm in found["arms"]] == [pytest.approx(2 / 3)] * 5
    assert found["tokens"] == {"gpt-4o": {"input": 200, "output": 60, "reasoning": 0}}
    assert found["models_served"] == ["gpt-4o-2024-08-06"]
    assert found["counted_by"] == {"upstream": 2 * REQUESTS}
    assert found["usd"] == pytest.approx((200 * 2.5 + 60 * 10) / 1_000_000)
    assert found["missed"] == [
        {"prompt": "sum", "fact": "It is 2.", "arms": {arm.value: 2 for arm in Arm}}
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}

    again = await command("--runs", "2", "--json")
    assert json.loads(again.out)["arms"] == found["arms"]
    assert len(upstream.requests) == 2 * REQUESTS, "what was answered was asked again"


async def test_it_stops_before_the_limit_and_goes_on_with_a_higher_one(
    command: Command, upstream: FakeUpstream
) -> None:
    limit = ("--max-tokens-total", "4600")
    first = await command(limit=limit)
    assert first.code == 1
    asked = len(upstream.requests)
    assert 1 <= asked < REQUESTS
    left = REQUESTS - asked
    assert "nothing can be compared yet" in first.out
    assert f"{asked * 13} of 4,600 tokens spent, {left} requests are left" in first.err
    found = json.loads((command.cwd / "mintoken-eval" / "report.json").read_text())
    assert (found["ending"], found["requests_left"], found["compared"]) == ("limit", left, 0)

    again = await command(limit=limit)
    assert again.code == 1
    assert len(upstream.requests) == asked, "it was asked though nothing more is admitted"

    [advised] = re.findall(r"--max-tokens-total \d+", again.err)
    last = await command(limit=tuple(advised.split()))
    assert (last.code, last.err) == (0, "")
    bodies = Counter(one.body for one in upstream.requests)
    assert len(bodies) == REQUESTS
    assert set(bodies.values()) == {1}


async def test_a_limit_in_dollars_is_never_passed_even_by_answers_as_long_as_can_be(
    here: Here, upstream: FakeUpstream
) -> None:
    usage = {"prompt_tokens": 60, "completion_tokens": 100, "total_tokens": 160}
    upstream.default = [json_reply(completion(usage=usage))]
    price = Price(0, 100.0)
    budget = Budget(max_usd=0.035, prices={"": price})
    came = await here(budget=budget, concurrency=8)
    assert came.ending is Ending.LIMIT
    assert len(upstream.requests) == 3
    assert budget.usd(came.book.spent()) == pytest.approx(0.03)


async def test_refusals_that_pass_are_waited_for(here: Here, upstream: FakeUpstream) -> None:
    upstream.play(AGAIN)
    upstream.play(AGAIN.replace(b"429 Too Many Requests", b"503 Service Unavailable"))
    came = await here()
    assert (came.ending, came.left) == (Ending.DONE, 0)
    assert len(upstream.requests) == REQUESTS + 2


async def test_failures_are_told_and_left_out_and_asked_again_by_the_next_run(
    here: Here, upstream: FakeUpstream
) -> None:
    upstream.play(OK)
    for _ in range(5):
        upstream.play(AGAIN)
    upstream.play(error("400 Bad Request", f"too\x1blong for {PROVIDER_CANARY}"))
    upstream.play(json_reply(completion("", usage={"prompt_tokens": 1, "completion_tokens": 7})))
    upstream.play(reply(b"<html>", content_type="text/html"))
    upstream.play(DIE)
    came = await here()
    assert (came.ending, came.left) == (Ending.STOPPED, 5)
    why = [failed.why for failed in came.book.failures.values()]
    assert why[0] == "Status 429: no message"
    assert why[1] == "Status 400: too long for [key]"
    assert "is empty" in why[2]
    assert why[3] == "The answer is no chat completion."
    assert why[4].startswith("The provider's answer was not a valid one.")
    took = [failed.tokens for failed in came.book.failures.values()]
    assert took == [Tokens(), Tokens(), Tokens(input=1, output=7), None, None]
    asked = len(upstream.requests)
    again = await here()
    assert (again.ending, again.left, again.book.failures) == (Ending.DONE, 0, {})
    assert len(upstream.requests) == asked + 5


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error("401 Unauthorized", f"bad key {PROVIDER_CANARY}"), "does not take the key (401)"),
        (error("402 Payment Required"), "Add credit"),
        (error("403 Forbidden"), "may not use gpt-4o"),
        (error("404 Not Found"), "knows no model gpt-4o"),
        (error("429 Too Many Requests", code="insufficient_quota"), "no credit left"),
        (reply(b"", status="302 Found", headers=[("Location", "/x")]), "redirect"),
    ],
)
async def test_what_would_fail_every_time_ends_it_at_once(
    here: Here, upstream: FakeUpstream, answer: bytes, told: str
) -> None:
    upstream.default = [answer]
    came = await here()
    assert came.ending is Ending.STOPPED
    assert told in came.why
    assert PROVIDER_CANARY not in came.why
    assert len(upstream.requests) == 1
    assert came.book.spent() == {"": Tokens()}


async def test_it_gives_up_if_the_first_five_fail(here: Here, upstream: FakeUpstream) -> None:
    upstream.default = [error("400 Bad Request", "no such parameter")]
    came = await here()
    assert came.why == "Nothing was answered. Status 400: no such parameter"
    assert len(upstream.requests) == 5


async def test_a_provider_that_is_not_there_is_told(command: Command, unused_tcp_port: int) -> None:
    ran = await command("--base-url", f"http://127.0.0.1:{unused_tcp_port}/v1", "--max-usd", "2")
    assert ran.code == 1
    assert "It refused the connection." in ran.err
    assert "Check --base-url." in ran.err


async def test_the_name_of_the_cap_is_the_one_that_the_model_takes(
    here: Here, upstream: FakeUpstream
) -> None:
    refusal = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    upstream.play(error("400 Bad Request", refusal))
    assert (await here()).left == 0
    fields = [set(json.loads(one.body)) - {"model", "messages"} for one in upstream.requests]
    assert fields == [{"max_tokens"}] + [{"max_completion_tokens"}] * REQUESTS


async def test_a_provider_that_ignores_the_cap_is_reckoned_with(
    here: Here, upstream: FakeUpstream
) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5000}
    upstream.play(json_reply(completion(usage=usage)))
    came = await here(budget=Budget(max_tokens=9_000))
    assert came.ending is Ending.LIMIT
    assert len(upstream.requests) == 1
    assert "does not keep to the cap: an answer took 5,000 tokens" in here.said[0]


async def test_tokens_are_counted_here_where_the_provider_does_not(
    here: Here, upstream: FakeUpstream
) -> None:
    upstream.default = [json_reply(completion(usage=None))]
    came = await here()
    answer = came.book.answers[Question("sum", 1, Arm.NONE)]
    assert (answer.tokens.output, answer.counted_by) == (3, "tiktoken")


async def test_a_judge_is_asked_about_every_answer_and_not_told_the_arm(
    here: Here, upstream: FakeUpstream
) -> None:
    await here()
    settings = settings_of(
        here.plan.prompts, base_url=here.url, model="gpt-4o", cap=100, judge="judge-1"
    )
    upstream.default = [json_reply(completion("1 yes\n2 no"))]
    came = await here(settings=settings)
    asked = [json.loads(one.body) for one in upstream.requests[REQUESTS:]]
    assert len(asked) == REQUESTS
    assert {body["model"] for body in asked} == {"judge-1"}
    for text in filter(None, arm_texts().values()):
        assert text.encode() not in b"".join(one.body for one in upstream.requests[REQUESTS:])
    verdicts = {q: one.verdicts for q, one in came.book.answers.items() if q.judge}
    assert set(verdicts.values()) == {(True, False)}
    assert len(verdicts) == len(Arm), "a verdict was taken that has more facts than the prompt"
    assert {failed.why for failed in came.book.failures.values()} == {
        "The judge did not say yes or no to each fact."
    }
    assert came.book.spent()["judge-1"] == Tokens(input=10 * REQUESTS, output=3 * REQUESTS)


async def test_ctrl_c_waits_for_what_is_under_way_and_the_next_run_goes_on(
    command: Command, upstream: FakeUpstream
) -> None:
    go_on = asyncio.Event()
    for _ in range(3):
        upstream.play(OK)
    upstream.play(go_on, OK)
    running = await command.begin()
    await upstream.received(4)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    told = await asyncio.wait_for(running.stderr.readline(), 30)
    assert b"Stopping. What is under way (1) is paid for" in told
    go_on.set()
    first = await command.end(running)
    assert first.code == 1
    assert "Interrupted: 6 requests are left." in first.err
    assert len(upstream.requests) == 4
    second = await command()
    assert (second.code, second.err) == (0, "")
    assert set(Counter(one.body for one in upstream.requests).values()) == {1}


async def test_ctrl_c_ends_a_pause_and_nothing_more_is_asked(
    here: Here, upstream: FakeUpstream
) -> None:
    upstream.play(AGAIN.replace(b"Retry-After: 0", b"Retry-After: 60"))
    running = asyncio.create_task(here())
    await upstream.received(1)
    os.kill(os.getpid(), signal.SIGINT)
    came = await asyncio.wait_for(running, 30)
    assert (came.ending, came.left) == (Ending.INTERRUPTED, REQUESTS)
    assert len(upstream.requests) == 1


async def test_a_second_ctrl_c_gives_up_and_what_that_may_cost_is_counted(
    command: Command, upstream: FakeUpstream
) -> None:
    upstream.play(asyncio.Event())
    running = await command.begin("--json")
    await upstream.received(1)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    await asyncio.wait_for(running.stderr.readline(), 30)
    running.send_signal(signal.SIGINT)
    ran = await command.end(running)
    assert ran.code == 1
    assert json.loads(ran.out)["tokens"]["gpt-4o"]["output"] == 4096


async def test_a_killed_one_goes_on_and_counts_what_was_under_way(
    command: Command, upstream: FakeUpstream
) -> None:
    upstream.play(OK)
    upstream.play(asyncio.Event())
    running = await command.begin()
    await upstream.received(2)
    running.kill()
    await running.communicate()
    ran = await command("--json")
    found = json.loads(ran.out)
    assert (ran.code, found["complete"]) == (0, True)
    assert found["tokens"]["gpt-4o"]["output"] == 4096 + 3 * REQUESTS
    assert len(upstream.requests) == REQUESTS + 1


async def test_on_a_terminal_it_shows_how_far_it_is_and_what_was_spent(
    command: Command, upstream: FakeUpstream
) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mintoken", "eval", *command.defaults, "--max-tokens-total", "90000",
        cwd=command.cwd, env=os.environ | command.key | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        try:
            shown.extend(os.read(ours, 65536))
        except OSError:  # The terminal's other end is closed.
            asyncio.get_running_loop().remove_reader(ours)

    asyncio.get_running_loop().add_reader(ours, read)
    assert await asyncio.wait_for(process.wait(), 60) == 0, shown.decode()
    await eventually(lambda: b"10 of 10 answered" in shown)
    assert b"130 of 90,000 tokens" in shown
    asyncio.get_running_loop().remove_reader(ours)
    os.close(ours)


async def test_the_key_is_asked_for_on_the_terminal_and_not_shown(
    command: Command, upstream: FakeUpstream
) -> None:
    ours, theirs = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mintoken", "eval", *command.defaults, "--max-tokens-total", "90000",
        cwd=command.cwd, env=environ, stdin=theirs, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    assert process.stderr is not None
    asked = await asyncio.wait_for(process.stderr.readuntil(b"(not shown): "), 30)
    os.write(ours, f"{PROVIDER_CANARY}\n".encode())
    ran = await command.end(process)
    assert b"provider's key" in asked
    assert ran.code == 0
    shown = b""
    with suppress(OSError):  # Nothing was shown, and its other end is closed.
        shown = os.read(ours, 4096)
    assert PROVIDER_CANARY.encode() not in shown
    assert upstream.requests[0].header("Authorization") == f"Bearer {PROVIDER_CANARY}"
    os.close(ours)


@pytest.fixture
def misused(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command in this process, where it must not get to ask anything; code and complaint."""
    monkeypatch.chdir(prompts.parent)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("MINTOKEN_PROVIDER_KEY", PROVIDER_CANARY)

    def run(*options: str, model: str = "m") -> tuple[int, str]:
        code = main(["eval", "--model", model, "--prompts", str(prompts), *options])
        return code, re.sub(r"[│\s]+", " ", capsys.readouterr().err)

    return run


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--max-tokens-total"),
        (("--max-usd=1",), "price of m is not known"),
        (("--max-usd=1", "--price=1,1", "--judge=j"), "price of j is not known"),
        (("--max-usd=1", "--price=cheap"), "is no price"),
        (("--max-usd=1", "--price=1,1", "--base-url=ftp://x"), "no URL of a provider"),
        (("--stand-in",), "The stand-in takes none."),
        (("--model", ""), "try --stand-in"),
    ],
)
def test_what_is_missing_or_wrong_is_misuse(misused, options: tuple[str, ...], told: str) -> None:
    code, err = misused(*options)
    assert (code, told in err) == (2, True), err


async def test_a_model_in_the_price_table_needs_no_price(
    command: Command, upstream: FakeUpstream
) -> None:
    ran = await command("--max-usd", "0.02", "--judge", "gpt-4.1", limit=())
    assert "gpt-4o is reckoned at $2.5 per million tokens of input and $10 of output" in ran.err
    assert "gpt-4.1 is reckoned at $2 per" in ran.err
    assert (ran.code, upstream.requests) == (1, [])  # An answer may take 4096 tokens, thus $0.04.
    assert "--max-usd 1.08 is enough for all" in ran.err


def test_without_a_key_nothing_is_asked(misused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINTOKEN_PROVIDER_KEY", "mt_live_0123456789")
    code, err = misused("--max-tokens-total=9999")
    assert (code, "This is no provider key" in err) == (1, True)
    monkeypatch.delenv("MINTOKEN_PROVIDER_KEY")
    code, err = misused("--max-tokens-total=9999")
    assert code == 1
    assert "Put your provider's key into MINTOKEN_PROVIDER_KEY or OPENAI_API_KEY." in err


def test_a_bad_set_is_a_wrong_configuration(misused, prompts: Path) -> None:
    prompts.write_text("[[prompt]]\n")
    code, err = misused("--max-tokens-total=9999")
    assert code == 78
    assert "mintoken: prompts.toml: prompt 1 (no id): user: a text is needed" in err


async def test_other_settings_in_the_same_folder_are_refused(
    command: Command, upstream: FakeUpstream
) -> None:
    assert (await command()).code == 0
    ran = await command("--cap", "100")
    assert (ran.code, "--cap was 4096" in ran.err) == (1, True)
    assert len(upstream.requests) == REQUESTS


async def test_the_stand_in_answers_the_whole_set_offline(command: Command) -> None:
    command.defaults, command.key = (), {}
    ran = await command("--stand-in", "--json", limit=())
    found = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert found["compared"] == len(load_set(None).prompts)
    assert "no measurement" in found["note"]
    tokens = [arm["answer_tokens"] for arm in found["arms"]]
    assert tokens == sorted(tokens, reverse=True)
    assert found["arms"][3]["coverage"]["value"] == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 4.0),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "86400"}, 60.0),
        ({"Retry-After": "-1"}, 4.0),
        ({"Retry-After": "nan"}, 4.0),
        ({"Retry-After": "soon"}, 4.0),
        (
            {
                "Retry-After": "Wed, 25 Nov 2026 10:00:09 GMT",
                "Date": "Wed, 25 Nov 2026 10:00:00 GMT",
            },
            9.0,
        ),
        ({"Retry-After": "Wed, 25 Nov 2026 10:00:09 GMT"}, 4.0),
    ],
)
def test_a_pause_is_as_long_as_the_provider_asks(headers: dict[str, str], seconds: float) -> None:
    assert pause_s(headers, otherwise=4.0) == seconds


def test_other_commands_do_not_wait_for_what_it_needs() -> None:
    loads = "import sys, mintoken.cli; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    loaded = ran.stdout.split()
    assert "mintoken.cli.evaluate" in loaded
    assert not [name for name in loaded if re.match(r"pygal|mintoken\.(eval|rehearsal)", name)]
