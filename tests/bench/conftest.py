"""Tiny runs of three methods."""

from typing import Any

import pytest

from jepakit.bench import machine
from jepakit.config import resolve
from jepakit.plan import count
from tests.train import tiny

SMALL = "data.batch_size=4 data.workers=0 trainer.threads=1 trainer.device=cpu trainer.precision=fp32 "
SMALL += "encoder.expander=[16] "
METHODS = {
    "vicreg": "recipe=vicreg_vitt4_32px data=world data.side=32 encoder.model_args.depth=1",
    "mcjepa": "recipe=mcjepa_convnext_64px branches.motion.data.batch_size=2 branches.motion.data.workers=0",
}


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU can do is measured in no time, and badly; so is how many tokens a step has."""
    monkeypatch.setitem(machine.SIDE, "cpu", 16)
    monkeypatch.setitem(machine.COPIED, "cpu", 1024)
    monkeypatch.setattr(count, "DRAWS", 2)


def method(name: str) -> dict[str, Any]:
    """A configuration of ``ijepa``, ``vicreg`` or ``mcjepa``."""
    return tiny.config() if name == "ijepa" else resolve((SMALL + METHODS[name]).split())
