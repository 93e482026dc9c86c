"""The wheel: a data file that is missing from it is missing from every installation."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTED = ("mintoken", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in TESTED:
        subprocess.run(["cp", "-R", ROOT / name, source], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "-w", folder, source],
        check=True, timeout=120,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "mintoken"
    wanted = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_what_it_installs_works(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # Without -S the editable installation of the tree could step in for what is missing.
    path = os.pathsep.join(
        [str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path}

    def mintoken(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-S", "-m", "mintoken", *arguments],
            cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    where = [sys.executable, "-S", "-c", "import mintoken; print(mintoken.__file__)"]
    ran = subprocess.run(
        where, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(str(site))
    assert json.loads(mintoken("keys", "create", "--json"))["name"] == "key-1"
    assert json.loads(mintoken("check", "--accounts", "--json"))["ok"]
    assert json.loads(mintoken("demo", "--json"))["answers"]
