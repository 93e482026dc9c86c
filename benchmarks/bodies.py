"""What is asked and what is answered, in OpenAI's shape."""

import base64
import random
from collections.abc import Mapping, Sequence

import orjson

PATH = "/v1/chat/completions"
FAST, PACED = "gpt-4o-fast", "gpt-4o-paced"
"""The models that the scripted provider streams as; any other one is answered with 1 KB at once."""
CHUNKS = 500
"""Of a fast stream."""
FIRST_CHUNK_S = 0.2
CHUNKS_PER_S = 20
"""Of a paced stream."""
STAMP = "fp_" + "0" * 19
"""Where a chunk says when it was sent, in nanoseconds of the machine's monotonic clock."""

WORDS = "the lock is held by one thread at a time and the others wait until it is free ".split()
CHINESE = ["锁在同一时间", "只由一个线程持有，", "其他线程等待", "直到它空闲。"]


def _text(size: int) -> str:
    dice = random.Random(7)
    text = ""
    while len(text) < size:
        text += dice.choice(WORDS) + " "
    return text[:size]


def _ask(model: str, content: object, **options: object) -> bytes:
    # The model stands first: the provider looks no further.
    return orjson.dumps(
        {"model": model, **options, "messages": [{"role": "user", "content": content}]}
    )


def small() -> bytes:
    """1 KB."""
    return _ask("gpt-4o", _text(950))


def prompt(begin: str, words: Sequence[str], size: int) -> bytes:
    """A question of so many bytes of UTF-8, what is around it left out of the count."""
    chosen = random.Random(begin).choices(words, k=size)
    text = (begin + " ".join(chosen)).encode()[:size]
    return _ask("gpt-4o", text.decode(errors="ignore"))


def vision() -> bytes:
    """1 MB, nearly all of it one image."""
    image = base64.b64encode(random.Random(7).randbytes(750_000)).decode()
    url = {"url": f"data:image/png;base64,{image}"}
    question = {"type": "text", "text": "What is in this picture?"}
    return _ask("gpt-4o", [question, {"type": "image_url", "image_url": url}])


def fast() -> bytes:
    """Asks for a stream as fast as it goes."""
    return _ask(FAST, _text(900), stream=True, stream_options={"include_usage": True})


def paced(seconds: int) -> bytes:
    """Asks for a stream that takes so long."""
    return _ask(
        PACED, _text(900), stream=True, max_tokens=seconds * CHUNKS_PER_S,
        stream_options={"include_usage": True},
    )  # fmt: skip


def whole_request(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The request as it goes over the wire."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer() -> bytes:
    """1 KB, with the provider's count of the tokens."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": _text(650), "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return orjson.dumps(
        {
            "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "gpt-4o-2024-08-06",
            "choices": [choice],
            "usage": usage(140),
            "service_tier": "default",
            "system_fingerprint": "fp_0000000000",
        }
    )


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 220, "completion_tokens": tokens, "total_tokens": 220 + tokens}


def chunk(*choices: object, fingerprint: str, **more: object) -> bytes:
    """One event of a stream, as one chunk of HTTP."""
    event = {
        "id": "chatcmpl-Benchmark",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o",
        "system_fingerprint": fingerprint,
        "choices": choices,
    }
    return framed(b"data: " + orjson.dumps(event | more) + b"\n\n")


def delta(word: str, finish: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": {"content": word} if word else {}, "finish_reason": finish}


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
