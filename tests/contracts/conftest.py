"""A configuration of small parts that fit together, to be broken in one place at a time."""

import copy
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

TOYS = Path(__file__).parent / "toys.py"


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy components, registered as a plugin by its file."""
    from jepakit import plugins

    monkeypatch.setenv(plugins.FILES, str(TOYS))
    plugins.forget()
    assert os.environ[plugins.FILES] == str(TOYS)
    return TOYS


@pytest.fixture
def config(toys: Path) -> Callable[..., dict[str, Any]]:
    """``config(masker={"name": "halves"})``: an I-JEPA of 16 tokens with whole nodes replaced, data's keys changed."""
    from jepakit.options import DataOptions

    base: dict[str, Any] = {
        "seed": 0,
        "distance": "smooth_l1",
        "data": {"name": "world", **asdict(DataOptions(batch_size=4, size=16, workers=0))},
        "tokenizer": {"name": "patch", "patch": 4},
        "masker": {"name": "halves"},
        "encoder": {"name": "vit", "width": 16, "depth": 1, "heads": 2},
        "predictor": {"name": "vit_predictor", "width": 8, "depth": 1, "heads": 2},
        "anti_collapse": {"ema": {"name": "ema"}},
    }

    def make(**changes: Any) -> dict[str, Any]:
        made = copy.deepcopy(base) | {key: node for key, node in changes.items() if key != "data"}
        return made | {"data": made["data"] | changes.get("data", {})}

    return make
