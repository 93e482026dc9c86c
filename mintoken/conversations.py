"""The level of a conversation: chosen at its first message, so that prompt caches keep hitting."""

import hashlib
import threading
from collections import OrderedDict

from mintoken.detect import Detector, is_none
from mintoken.exchange import Asked
from mintoken.models import Decision

MOST = 100_000
"""Conversations remembered: 16 MB."""
_HASH_BYTES = 16


class Conversations:
    """What detection said of each conversation, by a keyed hash of the user's side of it.

    The first decision holds for what follows, except that a later message may move it to NONE, and
    that holds too. The memory only saves work: what it has forgotten, or another worker knows, is
    found again from the messages, and comes out the same.
    """

    def __init__(self, detector: Detector, secret: bytes, *, most: int = MOST) -> None:
        """Remember up to `most` conversations; `secret` keys the hash."""
        self._detector, self._secret, self._most = detector, secret, most
        self._known: OrderedDict[bytes, Decision | None] = OrderedDict()
        self._lock = threading.Lock()  # large bodies are read in threads

    def decide(self, key_id: str, asked: Asked) -> Decision | None:
        """What suits this request of a key; None if the key's own level does.

        How a request is made counts for that request alone: it may be another caller's kind of
        question about the same conversation, such as for its title as JSON.
        """
        return self._detector.of_request(asked) or self._of_conversation(key_id, asked)

    def _of_conversation(self, key_id: str, asked: Asked) -> Decision | None:
        before, now = self._hashes(key_id, asked)
        with self._lock:
            known = before in self._known
            decision = self._known.pop(before, None)
        decision = self._next(asked, decision) if known else self._detector.of_conversation(asked)
        with self._lock:
            self._known[now] = decision
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return decision

    def _next(self, asked: Asked, so_far: Decision | None) -> Decision | None:
        if is_none(so_far):
            return so_far
        decision = self._detector.of_texts(asked)
        return decision if is_none(decision) else so_far

    def _hashes(self, key_id: str, asked: Asked) -> tuple[bytes, bytes]:
        """The names of the conversation before its last turn, and with it."""
        hashed = hashlib.blake2b(key=self._secret[:64], digest_size=_HASH_BYTES)
        for text in (key_id, asked.system, *asked.turns[:-1]):
            _add(hashed, text)
        before = hashed.digest()
        _add(hashed, asked.turns[-1])
        return before, hashed.digest()


def _add(hashed: "hashlib.blake2b", text: str) -> None:
    data = text.encode(errors="replace")
    hashed.update(len(data).to_bytes(8, "big"))
    hashed.update(data)
