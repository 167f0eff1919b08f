"""What the command line needs at its start is quick because it leaves the slow libraries alone."""

import subprocess
import sys

import pytest

QUICK = ["jepakit", "jepakit.plugins", "jepakit.config", "jepakit.cli", "jepakit.runs", "jepakit.new", "jepakit.data"]
SLOW = ("torch", "torchvision", "timm", "kornia", "lightly", "transformers", "matplotlib", "sklearn", "scipy", "pandas")


def slow_after(statement: str) -> list[str]:
    code = f"import sys\n{statement}\nprint(*[name for name in {SLOW} if name in sys.modules])"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()[-1].split()


def test_the_check_sees_torch() -> None:
    assert "torch" in slow_after("import jepakit.types")


@pytest.mark.parametrize("module", QUICK)
def test_module_starts_without_them(module: str) -> None:
    assert slow_after(f"import {module}") == []


def test_plugins_are_found_and_read_without_them() -> None:
    statement = """
from jepakit.plugins import discover
from jepakit.signature import dataclass_of
found = discover()
assert found.components and all(each.state == "loaded" for each in found.statuses), found.statuses
for each in found.components.values(): dataclass_of(each)
"""
    assert slow_after(statement) == []


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "--verbose"]])
def test_verbs_answer_without_them(arguments: list[str]) -> None:
    statement = f"""
from jepakit.cli import main
sys.argv = ["jepakit", *{arguments}]
try: main()
except SystemExit as end: assert not end.code, end.code
"""
    assert slow_after(statement) == []
