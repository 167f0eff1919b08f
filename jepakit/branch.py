"""What a step does for one branch: its batches, its masks, its losses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepakit import seeds
from jepakit.branches import branches
from jepakit.build import Built, Figure, ask
from jepakit.data import open_source
from jepakit.data.loader import Loader
from jepakit.data.quarantine import NAME, Quarantine
from jepakit.device import autocast
from jepakit.errors import ConfigError
from jepakit.protocols import Source
from jepakit.types import Batch, Losses, to_device


@dataclass(eq=False)
class Branch:
    """A figure and what feeds it.

    ``name`` is empty where the run has no branches; ``config`` is its own, as if there were no other; ``first`` is the
    first step that it takes part in, with ``accumulate`` micro-batches each; ``weight`` scales its losses.
    """

    name: str
    config: Mapping[str, Any]
    figure: Figure
    loader: Loader
    quarantine: Quarantine
    accumulate: int
    first: int = 0
    weight: float = 1.0

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Those of steps ``start`` to ``stop - 1`` of the run; the branch's own count begins where it joins."""
        start, stop = (max(0, step - self.first) * self.accumulate for step in (start, stop))
        return self.loader.batches(start, stop)

    def losses(self, batch: Batch, step: int, number: int) -> Losses:
        """The figure, for micro-batch ``number``: its masks and its noise depend on seed, step and branch alone."""
        key = (self.config["seed"], step, number, *([self.name] if self.name else []))
        who, rng = f"masker {self.config['masker']['name']!r}", seeds.generator("masks", *key)
        masks = ask(who, self.figure.masker, self.figure.grid, len(batch.index), rng, step)
        torch.manual_seed(seeds.key("noise", *key))
        device = batch.views[0].device
        with autocast(device, self.config["trainer"]["precision"]):
            return self.figure.jepa(batch.views, to_device(masks, device), batch.condition)

    def __str__(self) -> str:
        """What it is fed with."""
        source, grid = self.loader.source, self.figure.grid
        data = getattr(source, "describe_all", lambda: f"{len(source):,} samples")()
        branch = f"branch {self.name}, weight {self.weight:g}, " * bool(self.name)
        return f"{branch}data: {data}; tokens {grid.t} x {grid.h} x {grid.w}"

    def called(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by their names in the log: of several branches each says whose they are."""
        return {f"{self.name}/{name}" if self.name else name: value for name, value in values.items()}


class Taken(NamedTuple):
    """A micro-batch of a step, and whose it is."""

    branch: Branch
    number: int
    batch: Batch


def loaders(config: Mapping[str, Any], source: Source, device: torch.device) -> dict[str, Loader]:
    """Each branch's; ``source`` is that of those who have no data of their own."""
    found = {}
    for name, each in branches(config).items():
        own = name and config["branches"][name]["data"]
        found[name] = Loader(open_source(each["data"]) if own else source, each["data"], config["seed"], device)
    return found


def assemble(
    config: Mapping[str, Any],
    built: Built,
    loaders: Mapping[str, Loader],
    accumulate: int,
    epoch_steps: float,
    out: Path,
) -> list[Branch]:
    """The branches of a run, whose quarantines lie in its folder ``out``.

    Raises:
        ConfigError: where a masker asks for more views than its loader makes.
    """
    found = []
    for name, each in branches(config).items():
        loader, figure = loaders[name], built.figures[name]
        if figure.views > (given := len(loader.views)):
            asks = f"masker {each['masker']['name']!r} asks for {figure.views} views of a sample"
            raise ConfigError(f"{asks}, the data gives {given}")
        options = config["branches"][name] if name else {"data": None, "start": 0, "weight": 1.0}
        listed = f"quarantine-{name}.jsonl" if options["data"] else NAME
        quarantine = Quarantine(out, each["data"]["max_bad"], len(loader.source), listed)
        first, weight = int(options["start"] * epoch_steps), options["weight"]
        found.append(Branch(name, each, figure, loader, quarantine, accumulate, first, weight))
    return found
