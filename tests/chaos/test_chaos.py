"""A short form of each experiment of `make chaos`."""

from functools import partial
from pathlib import Path

import pytest
from chaos import experiments

SHORT = {
    "kills": partial(experiments.kills, times=7),
    "disconnects": partial(experiments.disconnects, times=20),
    "full disk": partial(experiments.full_disk, times=1),
    "reloads": partial(experiments.reloads, times=2),
    "strict": partial(experiments.overshoot, enforcement="strict", limit=5_000),
    "soft": partial(experiments.overshoot, enforcement="soft", limit=5_000),
    "memory": partial(experiments.memory, times=5_000),
}


@pytest.mark.parametrize("name", SHORT)
async def test_what_happens_is_survived(tmp_path: Path, name: str) -> None:
    result = await SHORT[name](tmp_path, lambda _: None)
    assert result.good, result
