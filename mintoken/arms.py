"""The arms of an experiment: which conversations are left untouched so that savings show."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from mintoken.exchange import Opening

MOST_CONTROL = 50
"""Percent of a key's conversations that may be kept out of the product arm."""
RETRIED = 0.05
"""The share of a stopped key's conversations in which the product is tried all the same."""


class Arm(StrEnum):
    """What an experiment does with a conversation; NONE where there is no experiment.

    CONTROL is left untouched, CONCISE gets one plain sentence, PRODUCT gets what Mintoken does.
    STOPPED would be PRODUCT, but there it does not pay: it is in no comparison.
    """

    NONE = ""
    PRODUCT = "product"
    CONTROL = "control"
    CONCISE = "concise"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The arm of a request's conversation.

    `conversation` is a keyed hash, in hexadecimal. `opening_bytes` is the size of the texts that it
    opens with: no treatment has touched these. `retries` says whether it is among those in which a
    stopped product is tried. `epoch` is since when the arms have these shares (UTC milliseconds).
    """

    arm: Arm = Arm.NONE
    conversation: str = ""
    opening_bytes: int = 0
    retries: bool = False
    epoch: int = 0


NO_EXPERIMENT = Assignment()


def assign(
    secret: bytes, experiment: str, opening: Opening, *, control: int, concise: int
) -> Assignment:
    """The arm of the conversation with this opening; `control` and `concise` are percents.

    It needs no memory: the hash is a point on a line, of which control takes one end and concise
    the other, so a share that grows keeps those that it had. Conversations that open alike are one,
    for nothing else says in every turn which one it is.
    """
    hashed = hashlib.blake2b(key=secret[:64], digest_size=24, person=b"experiment arm")
    for piece in (memoryview(experiment.encode()), *opening.pieces):
        hashed.update(piece.nbytes.to_bytes(8, "big"))
        hashed.update(piece)
    digest = hashed.digest()
    point = 100 * _share(digest[:8])
    arm = Arm.PRODUCT
    if point < control:
        arm = Arm.CONTROL
    elif point >= 100 - concise:
        arm = Arm.CONCISE
    return Assignment(
        arm=arm,
        conversation=digest[8:16].hex(),
        opening_bytes=opening.text_bytes,
        retries=_share(digest[16:]) < RETRIED,
    )


def _share(digest: bytes) -> float:
    """A number from 0 to 1, but not 1: a float of 53 bits takes no more."""
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
