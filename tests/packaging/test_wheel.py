"""The wheel holds what the checkout holds, and runs without it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

MAPPED = {"configs": "jepakit/configs", "recipes": "jepakit/recipes"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what belongs to it, so that building leaves nothing behind in the checkout."""
    work = tmp_path_factory.mktemp("wheel")
    for name in ("jepakit", "plugins", "configs", "recipes"):
        shutil.copytree(root / name, work / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, work / "checkout")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(work)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(work / "checkout")], check=True)
    return next(work.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """The wheel, installed into a folder of its own."""
    target = wheel.parent / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return target


def tree(root: Path) -> set[str]:
    """Every file of the packages, by the path that it is installed at."""
    found = set()
    for top in ("jepakit", "plugins", "configs", "recipes"):
        for path in (root / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix in (".py", ".yaml", ".typed"):
                name = path.relative_to(root / "plugins" if top == "plugins" else root).as_posix()
                found.add(re.sub(r"^(configs|recipes)(?=/)", lambda match: MAPPED[match[0]], name))
    return found


def test_wheel_holds_the_tree_and_nothing_else(root: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    held = {name for name in names if ".dist-info/" not in name}
    assert held == tree(root)
    assert {"jepakit/py.typed", "jepakit/configs/train.yaml"} <= held
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_wheel_runs_without_the_checkout(root: Path, site: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        outcome = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    where = run(
        "-c",
        "import jepakit, jepakit_vit, jepakit.recipes as r; print(jepakit.__file__, jepakit_vit.__file__, r.__file__)",
    )
    assert all(Path(each).is_relative_to(site) for each in where.split()), where
    assert "usage" in run("-m", "jepakit.cli", "--help").lower()
    listed = run("-m", "jepakit.cli", "plugins")
    for name in ("vit", "multiblock", "ema", "data"):
        assert re.search(rf"\b{name}\b.*\bloaded\b", listed), listed
    assert "vit_huge" in run("-m", "jepakit.cli", "show", "config", "encoder=vit_huge")


def test_every_direct_dependency_is_pinned_and_no_registry_is_named(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    direct = project["dependencies"] + project["optional-dependencies"]["dev"] + project["optional-dependencies"]["hf"]
    assert {re.match(r"[\w-]+", each)[0].lower() for each in direct} <= pinned
    for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run"):
        assert "://" not in (root / name).read_text(), name
