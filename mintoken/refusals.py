"""Which providers' models refuse to be asked for the usage of a stream; forgotten after a while."""

import time
from collections import OrderedDict
from collections.abc import Callable

from mintoken.models import label

REMEMBERED_S = 3600.0
"""Seconds after which a provider is asked again: it may have been upgraded."""
MOST = 1024
"""Refusals that are remembered; beyond that the oldest are forgotten."""


class Refusals:
    """What this process knows; `clock` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: OrderedDict[tuple[str, str], float] = OrderedDict()

    def add(self, base_url: str, model: str) -> None:
        """Remember that this was refused just now."""
        key = (base_url, label(model))
        self._since[key] = self._clock()
        self._since.move_to_end(key)
        if len(self._since) > MOST:
            self._since.popitem(last=False)

    def has(self, base_url: str, model: str) -> bool:
        """Was it refused not long ago?"""
        key = (base_url, label(model))
        since = self._since.get(key)
        if since is not None and self._clock() - since >= REMEMBERED_S:
            self._since.pop(key, None)  # Who asks for a large body does so in a thread.
            return False
        return since is not None
