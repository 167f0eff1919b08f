"""``jepakit new``: what it writes is a plugin, and passes its own test as it is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepakit.errors import ConfigError
from jepakit.new import KINDS, new
from jepakit.plugins import discover
from jepakit.signature import dataclass_of


def run_pytest(*arguments: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_masker_as_a_person_runs_it(tmp_path: Path) -> None:
    files = new("masker", "checker_board", tmp_path / "mine")
    names = [file.name for file in files]
    assert names == ["jepakit_checker_board.py", "test_jepakit_checker_board.py", "pyproject.toml", "README.md"]
    outcome = run_pytest(cwd=tmp_path / "mine")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "1 passed" in outcome.stdout


def test_every_other_kind_keeps_its_contract(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind != "masker"]
    for kind in kinds:
        new(kind, f"my_{kind}", tmp_path / kind)
    path = os.pathsep.join(str(tmp_path / kind) for kind in kinds)
    outcome = run_pytest("--rootdir", str(tmp_path), *kinds, cwd=tmp_path, path=path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert f"{len(kinds)} passed" in outcome.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_registers_what_it_says(tmp_path: Path, kind: str, install) -> None:
    files = new(kind, "toad", tmp_path / "made")
    code = {
        str(file.relative_to(tmp_path / "made")): file.read_text()
        for file in files
        if "toad" in str(file.parent.name) + file.stem
    }
    install("jepakit-toad", code, toad="jepakit_toad")
    component = discover().get(kind, "toad")
    assert dataclass_of(component)().name == "toad"
    assert component.arguments(), "there is an argument to show how one is set"
    text = (tmp_path / "made" / "pyproject.toml").read_text()
    assert 'name = "jepakit-toad"' in text
    assert 'toad = "jepakit_toad"' in text


def test_masker_needs_neither_base_class_nor_hydra_and_is_short(tmp_path: Path) -> None:
    text = new("masker", "toad", tmp_path)[0].read_text()
    imports = [line.strip() for line in text.splitlines() if line.strip().startswith(("import", "from"))]
    assert [line.split("#")[0].strip() for line in imports] == ["import jepakit", "import torch"]
    assert "class Toad:" in text
    assert not list(tmp_path.rglob("*.yaml"))


def test_default_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new("masker", "big_toad")[0] == Path("jepakit-big-toad/jepakit_big_toad.py")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="README.md is there already"):
        new("masker", "toad", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("maskr", "toad", r"writes no 'maskr' \(did you mean 'masker'\?\)"),
        ("source", "toad", "writes no 'source'"),
        ("masker", "class", "'class' cannot name a masker"),
        ("masker", "My-Toad", r"cannot name a masker.*did you mean 'my_toad'\?"),
        ("masker", "2toads", "'2toads' cannot name a masker"),
        ("masker", "", "'' cannot name a masker"),
        ("masker", "../toad", "cannot name a masker"),
        ("masker", "multiblock", "a module jepakit_multiblock is installed already"),
    ],
)
def test_bad_kinds_and_names_in_one_line(tmp_path: Path, kind: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        new(kind, name, tmp_path / "made")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()
