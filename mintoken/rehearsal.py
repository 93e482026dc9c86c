"""A provider without a model for `mintoken eval`: it says the prompts' own reference answers."""

from collections.abc import Mapping, Sequence

from mintoken.eval_plan import arm_texts
from mintoken.eval_records import Arm
from mintoken.eval_set import PromptSet

NOTE = (
    "The stand-in's answers are canned: the set's own reference answers, with more or less around "
    "them. This shows how it works; it is no measurement of a model."
)
_FILLER = {
    Arm.NONE: (
        "Great question! Let us look at it step by step, since this comes up more often than one "
        "might think, and it helps to see the whole picture before going into the details.\n\n",
        "\n\nIn summary, that is all there is to it. I hope that this helps! Let me know if you "
        "would like an example, some alternatives, or more background on any of these points.",
    ),
    Arm.BRIEF: ("Here is the short answer.\n\n", ""),
    Arm.LITE: ("", "\n\nThat is all."),
}


def answers(prompts: PromptSet) -> "Answers":
    """What a stand-in for this set says."""
    return Answers({prompt.user: prompt.reference for prompt in prompts.prompts})


class Answers:
    """Chooses the answer by the question, and its length by the system text."""

    def __init__(self, references: Mapping[str, str]) -> None:
        self._references = references

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The answer to a chat."""
        reference = self._references.get(messages[-1]["content"], "I do not know.").strip()
        arm = _arm("".join(one["content"] for one in messages if one["role"] == "system"))
        if reference.startswith(("{", "[")):
            return reference
        if arm is Arm.ULTRA:
            return _shortened(reference)
        before, after = _FILLER.get(arm, ("", ""))
        return f"{before}{reference}{after}"


def _arm(system: str) -> Arm:
    texts = arm_texts().items()
    return next((arm for arm, text in texts if text and system.endswith(text)), Arm.NONE)


def _shortened(text: str) -> str:
    """Without its last sentence, where it has several in one line."""
    first, dot, _ = text.rstrip(".").rpartition(". ")
    return first + dot.strip() if dot and "\n" not in text else text
