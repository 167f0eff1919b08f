"""Patch tokens and maps of the same samples, read from a source."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from jepakit.data import BadSample, read_options
from jepakit.data.loader import evaluation_batches
from jepakit.data.views import CentreView
from jepakit.data.workers import items, workers
from jepakit.device import autocast
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.evaluate.controls import pixel_tokens
from jepakit.evaluate.data import Part
from jepakit.evaluate.dense import Dense, Levels
from jepakit.evaluate.features import WORKERS_PAY, Extracted, Reading, collect, levels_of, represented, undisturbed
from jepakit.protocols import Source
from jepakit.types import Grid

CHUNK = 16
"""Maps that a worker reads between two reports."""
NUMBERS = torch.int16
"""Classes are kept so."""


Kept = Callable[[Part, Reading, Callable[[], Extracted]], Extracted]
"""Gives tokens of a part that were read before, else what the function reads."""


def always(part: Part, reading: Reading, compute: Callable[[], Extracted]) -> Extracted:
    """Nothing is kept."""
    return compute()


def read(
    backbone: nn.Module,
    part: Part,
    reading: Reading,
    name: str,
    levels: Levels = "all",
    control: bool = False,
    kept: Kept = always,
) -> Dense:
    """Tokens of the last layer and maps ``name`` of the samples of a part; of clips those of the tubelet in the middle.

    As a ``control`` the tokens are each patch's normalised pixels, and where it lies. Raises DataError for data without
    such maps, where none can be read, and where they take more than ``reading.memory``; ConfigError for an encoder that
    gives no patch tokens, and for several looks at a sample.
    """
    refuse(part.source, reading, name)
    look = _Look(backbone, reading, levels, *_shape(backbone, part, reading, levels))
    each: Any = part.source
    _refuse_size(reading, len(part.rows), look.size, 4 if each.maps[name] is None else NUMBERS.itemsize)
    maps, index, bad = _maps(part, reading, name, look.frame)
    plain = reading._replace(label=None, memory=math.inf)
    with undisturbed(backbone):
        if control:
            found = look.control(part.source, plain, index)
        else:
            found = kept(part._replace(rows=index), plain, lambda: collect(look, part.source, plain, index))
    place = {number: row for row, number in enumerate(index.tolist())}
    there = torch.tensor([place[number] for number in found.index.tolist()])
    maps = maps if len(there) == len(maps) else maps[there]
    return Dense(
        look.middle(found.x), (look.grid.h, look.grid.w), maps, found.index, (*bad, *found.skipped), look.frame
    )


def mapped(source: Source, name: str) -> tuple[str, ...] | None:
    """The classes of a map, None of one of numbers. Raises DataError where the source has no such map."""
    known: Any = getattr(source, "maps", {})
    if name not in known:
        place = source.describe(0) if len(source) else "empty"
        there = f"its maps: {', '.join(known)}" if known else "data=world and data=maps have some"
        raise DataError(f"the data has no map {name!r}{nearest(name, known)} (first sample: {place}); {there}")
    return known[name]


def refuse(source: Source, reading: Reading, name: str) -> None:
    """Raise DataError for data without maps ``name``, and ConfigError for several looks at a sample."""
    known = mapped(source, name)
    if len(known or ()) > torch.iinfo(NUMBERS).max:
        raise DataError(
            f"{len(known or ()):,} classes, more than the {torch.iinfo(NUMBERS).max:,} that there is room for"
        )
    if reading.looks > 1:
        raise ConfigError(
            f"clips={reading.clips}: a dense probe looks at each sample once, so leave out clips= and views="
        )


class _Look(NamedTuple):
    """How the tokens of a batch are made: on which grid, and of how many frames."""

    backbone: nn.Module
    reading: Reading
    levels: Levels
    grid: Grid
    frames: int
    size: tuple[int, int]

    def __call__(self, pixels: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N D"]:
        return self.middle(_tokens(self.backbone, pixels, self.reading, self.levels)[0]).half()

    @property
    def frame(self) -> int:
        """The frame whose map is asked for: the middle one of the tubelet in the middle."""
        first, after = ((self.grid.t // 2 + more) * self.frames // self.grid.t for more in (0, 1))
        return (first + after - 1) // 2

    def middle(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B n D"]:
        """The tokens of the tubelet in the middle."""
        each = self.grid.h * self.grid.w
        return tokens if tokens.shape[1] == each else tokens[:, self.grid.t // 2 * each :][:, :each]

    def control(self, source: Source, reading: Reading, rows: Tensor) -> Any:
        """Raw pixels on the same grid."""
        return pixel_tokens(_Patches(self.grid, self.size[1]), source, reading, rows)


class _Patches(NamedTuple):
    """What the control for tokens asks of a backbone."""

    of: Grid
    width: int

    def grid(self, pixels: Tensor) -> Grid:
        """The grid, whatever the pixels."""
        return self.of


def _shape(backbone: nn.Module, part: Part, reading: Reading, levels: Levels) -> tuple[Grid, int, tuple[int, int]]:
    """Grid, frames, and tokens by width of a sample, as far as the first tells. Raises ConfigError."""
    data = dict(reading.data) | {"workers": 0, "batch_size": 1}
    asked = evaluation_batches(part.source, data, reading.device, part.rows[:1].tolist(), reading.views)
    with contextlib.closing(asked) as batches, undisturbed(backbone):
        pixels = next(batches).views[0]
        tokens, grid = _tokens(backbone, pixels, reading, levels)
    if grid.h * grid.w < 2:
        raise ConfigError("the encoder gives one vector for a picture and no patch tokens: a dense probe needs them")
    return grid, pixels.shape[2], (grid.h * grid.w, tokens.shape[2])


def _tokens(backbone: Any, pixels: Tensor, reading: Reading, levels: Levels) -> tuple[Tensor, Grid]:
    """All tokens, ``B N D``, and the grid that they lie on."""
    alone = reading.alone and pixels.shape[2] > 1
    with autocast(pixels.device, reading.precision):
        found = levels_of(represented(backbone, pixels, reading.alone))
    own = backbone.grid(pixels[:, :, :1] if alone else pixels)
    own = own._replace(t=pixels.shape[2]) if alone else own
    several = [(each, _grid(each.shape[1], own)) for each in found]
    maps = [each for each in several if each[1].h * each[1].w > 1] or several[-1:]  # a pooled vector is no map
    if levels == "all" and len(maps) > 1:
        finest = max((grid for _, grid in maps), key=lambda grid: grid.size)
        return torch.cat([_resized(each.float(), grid, finest) for each, grid in maps], 2), finest
    return maps[-1] if levels == "last" else max(maps, key=lambda each: each[1].size)


def _grid(count: int, own: Grid) -> Grid:
    """The grid of so many tokens: the backbone's own, or, of a level that has another, a square (views are square)."""
    side = math.isqrt(count // own.t)
    if own.size != count and own.t * side * side != count:
        raise ConfigError(
            f"the encoder gives {count} tokens, which are no square: a dense probe must know their places"
        )
    return own if own.size == count else Grid(own.t, side, side)


def _resized(tokens: Float[Tensor, "B N D"], grid: Grid, to: Grid) -> Float[Tensor, "B n D"]:
    if grid == to:
        return tokens
    maps = tokens.unflatten(1, tuple(grid)).flatten(0, 1).permute(0, 3, 1, 2)
    larger = F.interpolate(maps, (to.h, to.w), mode="bilinear", align_corners=False)
    return larger.permute(0, 2, 3, 1).unflatten(0, (len(tokens), to.t)).flatten(1, 3)


class _Maps(Dataset):
    """The maps of a source as a view shows them, with errors as values. Spawn-safe."""

    def __init__(self, source: Any, rows: list[int], name: str, frame: int, view: Any):
        self.source, self.rows, self.name, self.frame, self.view = source, rows, name, frame, view

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Tensor | str:
        try:
            found = self.source.map(self.rows[number], self.name, self.frame)
        except BadSample as bad:
            return str(bad)
        return self.view.fit_map(found).to(torch.float32 if found.is_floating_point() else NUMBERS)


def _maps(part: Part, reading: Reading, name: str, frame: int) -> tuple[Tensor, Tensor, list[str]]:
    """The maps that can be read, whose they are, and a line for each of the others. Raises DataError for none."""
    options = read_options(reading.data)
    view = reading.views[0] if reading.views else CentreView(options.size)
    source = _Maps(part.source, part.rows.tolist(), name, frame, view)
    count = 0 if options.workers is None and len(part.rows) < WORKERS_PAY else workers(options.workers)
    loader = DataLoader(source, CHUNK, num_workers=count, collate_fn=list, generator=torch.Generator())
    found: list[Tensor | str] = [each for several in items(loader) for each in several]
    bad = [each for each in found if isinstance(each, str)]
    if len(bad) == len(found):
        raise DataError(f"none of {len(found)} maps can be read" + (f"; first: {bad[0]}" if bad else ""))
    good = torch.tensor([isinstance(each, Tensor) for each in found])
    return torch.stack([each for each in found if isinstance(each, Tensor)]), part.rows[good], bad


def _refuse_size(reading: Reading, count: int, size: tuple[int, int], bytes_: int) -> None:
    """Raise DataError where tokens, and maps of so many bytes a pixel, are more than ``reading.memory`` GiB."""
    each = 2 * math.prod(size) + bytes_ * reading.data["size"] ** 2
    if count * each > reading.memory * 2**30:
        kind, most = f"{size[0]} x {size[1]}, float16", int(reading.memory * 2**30 / each)
        raise DataError(
            f"tokens ({kind}) and maps of {count:,} samples take {count * each / 2**30:.3g} GiB, more than "
            f"memory={reading.memory:g}: set limit= so that no more than {most:,} samples are read, or a larger "
            "memory="
        )
