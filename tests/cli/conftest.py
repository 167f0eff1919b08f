"""The command line in this process, in a folder of its own, with a trainer that only notes what it was asked."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

STUBS = Path(__file__).parents[1] / "config"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Path]]:
    """What the trainer was called with; a code left in ``trained.code`` is what it returns."""
    calls: Any = type("Calls", (list,), {"code": 0, "error": None})()

    def run(config: dict[str, Any], folder: Path) -> int:
        calls.append((config, folder))
        if calls.error is not None:
            raise calls.error
        return calls.code

    monkeypatch.setitem(sys.modules, "jepakit.train", SimpleNamespace(run=run))
    return calls


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture, trained: list):
    """``cli("train", "seed=1")`` runs one line; the result has ``code``, ``out`` and ``err``."""
    from jepakit.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*argv: str) -> SimpleNamespace:
        code = main(argv)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call
