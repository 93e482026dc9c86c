"""What smart detection costs, measured in this process: there is no other one to set it beside."""

import statistics
import time
from collections.abc import Callable

from benchmarks import bodies
from benchmarks.figures import Figure, Rounds, at_most
from benchmarks.load import Figures
from benchmarks.targets import MINTOKEN
from mintoken.conversations import Conversations
from mintoken.detect import load_detector
from mintoken.protocols.openai_chat import OpenAIChat

DECISIONS = 300
"""Of each kind of prompt in each round."""
WARM_UP = 50
"""Before them: RE2 builds its states when it first needs them."""

PROMPTS = {
    "1_kb": (bodies.WORDS, 1024),
    "4_kb": (bodies.WORDS, 4096),
    "16_kb": (bodies.WORDS, 16_384),
    "64_kb": (bodies.WORDS, 65_536),
    "chinese_4_kb": (bodies.CHINESE, 4096),
}
FIGURES = (
    Figure("1_kb", "CPU µs, 1 KB"),
    Figure("4_kb", "CPU µs, 4 KB", at_most(100, "µs")),
    Figure("16_kb", "CPU µs, 16 KB"),
    Figure("64_kb", "CPU µs, 64 KB"),
    Figure("chinese_4_kb", "CPU µs, 4 KB of Chinese", at_most(100, "µs")),
)


def measure(rounds: int, told: Callable[[float], None]) -> Rounds:
    """The median decision of each round, by the prompt's size."""
    found: list[Figures] = []
    conversations = Conversations(load_detector(), b"benchmark")
    for number in range(rounds):
        told(number / rounds)
        found.append(
            {
                name: _cpu_us(conversations, number, words, size)
                for name, (words, size) in PROMPTS.items()
            }
        )
    return {MINTOKEN: found}


def _cpu_us(conversations: Conversations, number: int, words: list[str], size: int) -> float:
    """From the body that was read to the level; no two prompts are alike, so none is remembered."""
    took_us = []
    for decision in range(-WARM_UP, DECISIONS):
        body = bodies.prompt(f"{number} {decision} ", words, size)
        turn = OpenAIChat().read(body)
        begun = time.thread_time_ns()
        conversations.decide("key", turn.asked())
        if decision >= 0:
            took_us.append((time.thread_time_ns() - begun) / 1000)
    return statistics.median(took_us)
