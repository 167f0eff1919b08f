"""Train tiny runs in one, two and four processes each, and keep what became of them.

    python -m tests.distributed.same FOLDER FAMILY ...

Of every run ``FOLDER/<family>/<spread>/`` holds the log, and ``state-<rank>.pt`` the parameters and buffers as the
process has them in the end, whole.
"""

import contextlib
import os
import sys
from pathlib import Path

import torch
import torch._dynamo  # sharding does, and each process would for itself
from torch.distributed.tensor import DTensor

import jepakit.train
from jepakit.build import build
from jepakit.config import resolve
from tests.distributed import families
from tests.distributed.forked import together


def train(family: str, spread: str, folder: Path) -> list[int]:
    """One run. Returns the exit code of each process."""

    config, fit = resolve(families.settings(family, spread)), jepakit.train.Trainer.fit
    build(config)  # all that this imports is there for every process

    def task(rank: int) -> None:
        torch.set_num_threads(1)

        def keep(trainer: jepakit.train.Trainer, asked: list[int]) -> bool:
            done = fit(trainer, asked)
            state = {name: whole(value) for name, value in trainer.jepa.state_dict().items()}
            torch.save(state, folder / f"state-{rank}.pt")
            return done

        jepakit.train.Trainer.fit = keep
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            raise SystemExit(jepakit.train.run(config, folder))

    folder.mkdir(parents=True)
    return together(families.SPREAD[spread][0], task)


def whole(value: torch.Tensor) -> torch.Tensor:
    """A parameter with all of its shards."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


if __name__ == "__main__":
    jepakit.train.report = lambda *_: []  # no pictures
    root, *chosen = sys.argv[1:]
    for family in chosen:
        for spread in families.spreads(family):
            codes = train(family, spread, Path(root) / family / spread)
            assert not any(codes), (family, spread, codes)
