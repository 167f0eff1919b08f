"""A step is the same, whoever shares it: bit by bit for all strategies, to rounding for one process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.distributed import families

CLOSE = 1e-6
"""Of losses, and of parameters relative to the largest of their tensor or, where that is smaller, to 0.1."""


@pytest.fixture(scope="module", params=families.FAMILIES)
def states(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """``states(spread)``: the parameters that each process ended with, and the losses of the log."""
    family, root = request.param, Path(tmp_path_factory.mktemp("same"))
    command = [sys.executable, "-m", "tests.distributed.same", str(root), family]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    def read(spread: str) -> tuple[list[dict[str, torch.Tensor]], list[float]]:
        folder = root / family / spread
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        ranks = range(families.SPREAD[spread][0])
        return [torch.load(folder / f"state-{rank}.pt") for rank in ranks], [line["loss"] for line in lines]

    read.family = family
    return read


def test_the_strategies_agree_bit_by_bit(states):
    for world in (2, 4):
        found = [states(spread) for spread in families.spreads(states.family, world)]
        (first, *others), losses = found[0]
        assert len(others) == world - 1
        for each in [*others, *(state for ranks, _ in found[1:] for state in ranks)]:
            assert first.keys() == each.keys()
            assert [name for name in first if not torch.equal(first[name], each[name])] == []
        assert all(other == losses for _, other in found)


def test_one_process_agrees_to_rounding(states):
    (alone,), losses = states("one")
    assert len(losses) == 2 and len(set(losses)) == 2
    for spread in ("ddp of 2", "ddp of 4")[states.family in families.BATCH :]:
        (state, *_), found = states(spread)
        assert found == pytest.approx(losses, rel=CLOSE)
        for name, value in alone.items():
            allowed = CLOSE * max(0.1, float(value.float().abs().max())) if value.numel() else 0
            allowed *= 5 if "running" in name else 1  # moments of the batch are sums of many numbers
            assert (value.float() - state[name].float()).abs().max() <= allowed, name
