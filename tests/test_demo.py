"""The demo: the whole path, offline, in one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mintoken.models import Intensity
from mintoken.stand_in import ANSWERS


def demo(*arguments: str, cwd: Path) -> str:
    # Whatever is configured here, and whichever proxy is set, it is neither read nor used.
    (cwd / "config.toml").write_text("not even TOML")
    environ = {"HTTP_PROXY": "http://127.0.0.1:9", "MINTOKEN_SERVER_LISTEN": "nonsense"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mintoken", "demo", *arguments],
        cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [path.name for path in cwd.iterdir()] == ["config.toml"], "it left something behind"
    return ran.stdout


def test_it_shows_both_answers_their_headers_and_their_usage(tmp_path: Path) -> None:
    shown = demo(cwd=tmp_path)
    assert ANSWERS[Intensity.NONE] in shown
    assert ANSWERS[Intensity.FULL] in shown
    assert shown.index("X-Mintoken-Intensity: none") < shown.index("X-Mintoken-Intensity: full")
    assert "demo, none" in shown
    assert "no measurement" in shown


def test_as_json_it_is_one_document_with_the_same_story(tmp_path: Path) -> None:
    story = json.loads(demo("--json", cwd=tmp_path))
    plain, compressed = story["answers"]
    assert plain["text"] == ANSWERS[Intensity.NONE]
    assert compressed["text"] == ANSWERS[Intensity.FULL]
    assert compressed["headers"]["X-Mintoken-Intensity"] == "full"
    assert compressed["headers"]["X-Mintoken-Reason"] == "header"
    without, with_ = story["usage"]
    assert (without["requests"], with_["requests"]) == (1, 1)
    assert (without["injected_tokens"], with_["injected_tokens"]) == (0, 61)
    saved = without["output_tokens"] - with_["output_tokens"]
    assert story["saving"]["output_tokens"] == saved > 0


def test_the_stand_in_says_less_at_every_level() -> None:
    lengths = [len(ANSWERS[level]) for level in Intensity]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == len(Intensity)
