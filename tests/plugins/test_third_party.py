"""Other people's distributions, installed by pip, beside this jepakit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "third_party"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which both are installed for real; their sources are copied, since building leaves files there."""
    work = tmp_path_factory.mktemp("third_party")
    sources = [shutil.copytree(folder, work / folder.name) for folder in sorted(HERE.iterdir())]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(work / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, sources)], check=True)
    return work / "site"


def run(site: Path, cwd: Path, *arguments: str) -> str:
    """The output of a Python that sees both distributions."""
    command = [sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    outcome = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def jepakit(site: Path, cwd: Path, *arguments: str) -> str:
    """The output of jepakit's command line."""
    return run(site, cwd, "-m", "jepakit.cli", *arguments)


SMALL = ["data.batch_size=2", "trainer.steps=2", "trainer.device=cpu", "logger.tensorboard=false", "evaluate.every=0"]


def test_plugins_lists_them(site: Path, tmp_path: Path) -> None:
    lines = jepakit(site, tmp_path, "plugins").splitlines()
    for name, distribution, version in (
        ("checker", "jepakit-checker", "0.3.0"),
        ("stripes", "jepakit-checker-full", "1.2.0"),
    ):
        line = next(line for line in lines if distribution in line.split())
        assert {name, distribution, version, "loaded"} <= set(line.split()), line


def test_train_with_a_third_partys_masker(site: Path, tmp_path: Path) -> None:
    chosen = ["recipe=demo", "masker=checkerboard", "masker.cell=4", f"run={tmp_path / 'run'}"]
    jepakit(site, tmp_path, "train", *chosen, *SMALL)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "name: checkerboard\n  cell: 4\n" in config


def test_train_with_its_recipe_and_variant(site: Path, tmp_path: Path) -> None:
    jepakit(site, tmp_path, "train", "recipe=stripes_demo", f"run={tmp_path / 'run'}", *SMALL)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "name: stripes\n  width: 2\n" in config
    assert "recipe: stripes_demo" in config


def test_both_keep_the_maskers_contract(site: Path, tmp_path: Path) -> None:
    code = (
        "from jepakit.plugins import discover\nfrom jepakit.testing import check_masker\n"
        "for name in ('checkerboard', 'stripes'): check_masker(discover().get('masker', name).load()())"
    )
    run(site, tmp_path, "-c", code)
