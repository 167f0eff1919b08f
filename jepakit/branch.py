"""What a step does for one branch: its batches, its masks, its losses."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepakit import joined, seeds
from jepakit.branches import branches
from jepakit.build import Built, Figure, ask
from jepakit.data import open_source
from jepakit.data.loader import Loader
from jepakit.data.quarantine import NAME, Quarantine
from jepakit.device import autocast
from jepakit.distributed import ALONE, Place
from jepakit.errors import ConfigError
from jepakit.options import BranchOptions
from jepakit.protocols import Source
from jepakit.types import Batch, Features, Losses, Mask, Outcome, rows, to_device


@dataclass(eq=False)
class Branch:
    """A figure and what feeds it.

    ``name`` is empty where the run has no branches; ``config`` is its own, as if there were no other; ``first`` is the
    first step that it takes part in, with ``accumulate`` micro-batches each; ``weight`` scales its losses. What it has
    for itself is trained at the rate ``lr``, its gradient no longer than ``clip`` (None: as all else).
    """

    name: str
    config: Mapping[str, Any]
    figure: Figure
    loader: Loader
    quarantine: Quarantine
    accumulate: int
    first: int = 0
    weight: float = 1.0
    lr: float | None = None
    clip: float | None = None
    place: Place = ALONE

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Those of its own steps ``start`` to ``stop - 1``, of which the first is the one where it joins."""
        return self.loader.batches(start * self.accumulate, stop * self.accumulate)

    @property
    def statistics(self) -> bool:
        """Whether a loss is a statistic over all samples of a step."""
        return getattr(self.figure.jepa.anti_collapse, "statistics", False)

    @property
    def joins(self) -> bool:
        """Whether its micro-batches have to be put together, because a loss is a statistic over all of a step."""
        return self.accumulate > 1 and self.statistics

    @property
    def share(self) -> float:
        """Of each of its ``gradients`` in the step's loss."""
        return self.weight if self.joins else self.weight / self.accumulate

    def gradients(
        self, batches: Sequence[Batch], step: int, begins: Callable[[bool], None] = lambda last: None
    ) -> Iterator[Losses]:
        """Add up the gradients of its micro-batches of a step; their losses, one where they are put together.

        ``begins`` is called as a micro-batch does, and told whether it is the last one.
        """
        if self.joins:
            yield self.joined(batches, step, begins)
            return
        for index, batch in enumerate(batches):
            begins(index == len(batches) - 1)
            losses = self.losses(batch, step, index)
            (losses.total * self.share).backward()
            yield losses

    def losses(self, batch: Batch, step: int, index: int) -> Losses:
        """The figure, for the ``index``-th of its micro-batches."""
        masks = self.asked(len(batch.index), step, [index])
        with self.noise(step, self.number(index)):
            return self.figure.jepa(batch.views, masks, batch.condition)

    def joined(self, batches: Sequence[Batch], step: int, begins: Callable[[bool], None]) -> Losses:
        """The step as if it were one batch, which draws its masks at once."""
        jepa, ends = self.figure.jepa, [0, *itertools.accumulate(len(batch.index) for batch in batches)]
        masks = self.asked(ends[1], step, range(len(batches)))

        def imagine(index: int, known: Sequence[Features] | None) -> list[Outcome]:
            some, batch = rows(masks, slice(ends[index], ends[index + 1])), batches[index]
            with self.noise(step, self.number(index)):
                return jepa.imagine(batch.views, some, batch.condition, known)

        def judge(outcomes: list[Outcome]) -> Losses:
            told = [batch.condition for batch in batches]
            condition = None if told[0] is None else [torch.cat(views) for views in zip(*told, strict=True)]
            with autocast(self.loader.device, self.config["trainer"]["precision"]):
                return jepa.judge(outcomes, masks, condition)

        return joined.losses(jepa, imagine, judge, len(batches), self.share, begins)

    def number(self, index: int) -> int:
        """Of one of this process's micro-batches among those of the step: processes take them in turns, so that a step
        is the same whoever computes it."""
        return index * self.place.world + self.place.rank

    def asked(self, count: int, step: int, indices: Sequence[int]) -> list[Mask]:
        """The masks of this process's micro-batches of ``count`` samples. Where a loss is a statistic over the step,
        all processes draw those of the whole step, as one batch would, and each takes its own."""
        if not self.statistics:
            (index,) = indices
            return self.masks(count, step, self.number(index))
        masks = self.masks(count * self.accumulate * self.place.world, step, 0)
        if self.place.world == 1 and len(indices) == self.accumulate:
            return masks
        own = torch.cat([torch.arange(count) + self.number(index) * count for index in indices])
        return rows(masks, own.to(self.loader.device))

    def masks(self, count: int, step: int, number: int) -> list[Mask]:
        """Those of ``count`` samples, where the views are; they depend on seed, step, ``number`` and branch alone."""
        who, rng = f"masker {self.config['masker']['name']!r}", seeds.generator("masks", *self.key(step, number))
        masks = ask(who, self.figure.masker, self.figure.grid, count, rng, step)
        return to_device(masks, self.loader.device)

    @contextlib.contextmanager
    def noise(self, step: int, number: int) -> Iterator[None]:
        """What is dropped in micro-batch ``number`` depends on seed, step and branch alone."""
        torch.manual_seed(seeds.key("noise", *self.key(step, number)))
        with autocast(self.loader.device, self.config["trainer"]["precision"]):
            yield

    def key(self, step: int, number: int) -> tuple[Any, ...]:
        """Of what is drawn for a micro-batch."""
        return (self.config["seed"], step, number, *([self.name] if self.name else []))

    def __str__(self) -> str:
        """What it is fed with."""
        source, grid = self.loader.source, self.figure.grid
        data = getattr(source, "describe_all", lambda: f"{len(source):,} samples")()
        branch = f"branch {self.name}, weight {self.weight:g}, " * bool(self.name)
        given, used = len(self.loader.views), self.figure.views
        views = f"; {given} views of a sample" * (given > 1) + f", of which {used} looked at" * (used < given)
        count = self.config["data"]["batch_size"] * self.accumulate * self.place.world
        twice = f"; statistics are those of {count} samples: each micro-batch is encoded twice" * self.joins
        return f"{branch}data: {data}; tokens {grid.t} x {grid.h} x {grid.w}{views}{twice}"

    def called(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by their names in the log: of several branches each says whose they are."""
        return {f"{self.name}/{name}" if self.name else name: value for name, value in values.items()}


@dataclass(frozen=True)
class Turns:
    """Which branches a step is of: all that have joined, or one of them after the other."""

    branches: Sequence[Branch]
    alternate: bool = False

    def __call__(self, step: int) -> list[Branch]:
        """Those of a step of the run."""
        there = [branch for branch in self.branches if branch.first <= step]
        return [there[step % len(there)]] if self.alternate and there else there

    def before(self, branch: Branch, step: int) -> int:
        """How many steps before ``step`` of the run were the branch's."""
        if not self.alternate:
            return max(0, step - branch.first)
        joins = sorted({min(each.first, step) for each in self.branches} | {step})
        return sum(self._between(branch, *span) for span in itertools.pairwise(joins))

    def _between(self, branch: Branch, start: int, stop: int) -> int:
        """Of some steps, within which none joins, those whose turn is the branch's."""
        there = [each for each in self.branches if each.first <= start]
        if branch not in there:
            return 0
        begun, ended = (-(-(step - there.index(branch)) // len(there)) for step in (start, stop))
        return ended - begun


class Taken(NamedTuple):
    """What a step takes of a branch."""

    branch: Branch
    batches: list[Batch]


def loaders(
    config: Mapping[str, Any], source: Source, device: torch.device, accumulate: int = 1, place: Place = ALONE
) -> dict[str, Loader]:
    """Each branch's, of steps of ``accumulate`` micro-batches; ``source`` is that of those who have no data of their
    own."""
    found = {}
    for name, each in branches(config).items():
        own = name and config["branches"][name]["data"]
        here, views = open_source(each["data"]) if own else source, each.get("views")
        among = {"rank": place.rank, "world": place.world, "accumulate": accumulate}
        found[name] = Loader(here, each["data"], config["seed"], device, views=views, **among)
    return found


def assemble(
    config: Mapping[str, Any],
    built: Built,
    loaders: Mapping[str, Loader],
    accumulate: int,
    epoch_steps: float,
    out: Path,
    place: Place = ALONE,
) -> list[Branch]:
    """The branches of a run, whose quarantines lie in its folder ``out``.

    Raises:
        ConfigError: where a masker asks for more views than its loader makes, or no branch is there from the beginning.
        DataError: for a run that goes on though more samples are bad than it allows.
    """
    found = []
    for name, each in branches(config).items():
        loader, figure = loaders[name], built.figures[name]
        if figure.views > (given := len(loader.views)):
            asks = f"masker {each['masker']['name']!r} asks for {figure.views} views of a sample"
            raise ConfigError(f"{asks}, the data gives {given}")
        options = asdict(BranchOptions()) | (config["branches"][name] if name else {})
        listed = f"quarantine-{name}.jsonl" if options["data"] else NAME
        quarantine = Quarantine(out, each["data"]["max_bad"], len(loader.source), listed)
        quarantine.look_again(loader.source, each["data"])
        first, rest = int(options["start"] * epoch_steps), (options[key] for key in ("weight", "lr", "clip"))
        found.append(Branch(name, each, figure, loader, quarantine, accumulate, first, *rest, place=place))
    if all(branch.first for branch in found):
        raise ConfigError("no branch is there from the beginning: one of branches.*.start has to be 0")
    return found
