"""Masks for a batch, drawn by the released collators and by ours in turns:

    OMP_NUM_THREADS=1 python -m tests.released.masks ijepa=FOLDER jepa=FOLDER

The folders are checkouts of facebookresearch/ijepa and facebookresearch/jepa, whose licence is not ours: nothing of
them is here; either may be left out. Times are of the process on its CPU, so that others who use the machine do not
count, and the time that the released I-JEPA collator takes to put samples together is not counted for masks. Memory
that is freed stays with the process, for both sides: otherwise the system takes it back after each call of a process
that does little else, and clears its pages. Ratios are of pairs that were timed one after the other: their median, and
the least and the greatest.
"""

import importlib.util
import logging
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from jepakit_multiblock.multiblock import Multiblock
from jepakit_tubes.tubes import Tubes
from torch.utils.data import default_collate

from jepakit.device import keep_pages
from jepakit.types import Grid
from tests.bench.turns import ratio, seconds

ROUNDS, SPAN = 15, 0.1
"""Pairs, and seconds that each side of a pair is timed for, at least."""

SIDE, TIMES = 224, 8
MODES = "unbiased", "official"


class Case(NamedTuple):
    """What is compared: theirs, which of its time is not for masks, and ours in each mode."""

    name: str
    theirs: Callable[[], Any]
    apart: Callable[[], Any]
    ours: dict[str, Callable[[], Any]]


def images(released: ModuleType) -> Iterator[Case]:
    """I-JEPA's masks, with the settings of its in1k_vith14_ep300.yaml."""
    for patch in (16, 14):
        grid = Grid(1, SIDE // patch, SIDE // patch)
        collator = released.MaskCollator(SIDE, patch, (0.85, 1.0), (0.15, 0.2), (0.75, 1.5), 1, 4, 10, False)
        for batch in (16, 128, 2048):
            samples = [torch.empty(0)] * batch
            yield Case(
                f"I-JEPA {grid.h} x {grid.w}, {batch}",
                lambda collator=collator, samples=samples: collator(samples),
                lambda samples=samples: default_collate(samples),
                drawn({mode: Multiblock(mode=mode) for mode in MODES}, grid, batch),
            )


def clips(released: ModuleType) -> Iterator[Case]:
    """V-JEPA's masks, with the settings of its vitl16.yaml: both kinds, and each alone."""
    grid = Grid(TIMES, SIDE // 16, SIDE // 16)
    shared = {"temporal_scale": (1.0, 1.0), "aspect_ratio": (0.75, 1.5), "max_temporal_keep": 1.0, "max_keep": None}
    for blocks, scales in (((8, 2), (0.15, 0.7)), ((8,), (0.15,)), ((2,), (0.7,))):
        settings = [
            {"num_blocks": n, "spatial_scale": (scale, scale), **shared}
            for n, scale in zip(blocks, scales, strict=True)
        ]
        made = released.MaskCollator(settings, (SIDE, SIDE), 2 * TIMES, 16, 2).mask_generators
        kinds = " and ".join(f"{n} x {scale}" for n, scale in zip(blocks, scales, strict=True))
        for batch in (24, 128):
            yield Case(
                f"V-JEPA {kinds}, {batch}",
                lambda made=made, batch=batch: [each(batch) for each in made],
                lambda: None,
                drawn({mode: Tubes(blocks, scales, mode=mode) for mode in MODES}, grid, batch),
            )


def drawn(maskers: dict[str, Any], grid: Grid, batch: int) -> dict[str, Callable[[], Any]]:
    """A batch's masks from each masker."""
    rng = torch.Generator().manual_seed(0)
    return {mode: lambda masker=masker: masker(grid, batch, rng) for mode, masker in maskers.items()}


def row(case: Case) -> str:
    """One line: milliseconds of theirs and, for each mode, of ours, and the ratio."""
    theirs, ours = [], {mode: [] for mode in case.ours}
    for _ in range(ROUNDS):
        theirs.append(seconds(case.theirs, SPAN) - seconds(case.apart, SPAN))
        for mode, call in case.ours.items():
            ours[mode].append(seconds(call, SPAN))
    cells = [f"{case.name:34}", f"{1e3 * statistics.median(theirs):8.2f}"]
    for found in ours.values():
        spread = ratio(theirs, found)
        cells.append(f"{1e3 * statistics.median(found):8.3f}")
        cells.append(f"x{spread.median:.0f} [{spread.least:.0f}..{spread.most:.0f}]".ljust(16))
    return " ".join(cells)


def load(path: Path) -> ModuleType:
    """One file as a module, whatever lies beside it."""
    spec = importlib.util.spec_from_file_location(f"released_{path.stem}", path)
    assert spec and spec.loader, f"{path} is no Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments: list[str]) -> None:
    """Print the table."""
    found = dict(argument.split("=", 1) for argument in arguments)
    logging.disable(logging.WARNING)  # theirs says each time that it gives up a target
    torch.set_num_threads(1)
    keep_pages()
    print(f"{'ms a batch':34} {'released':>8} {'unbiased':>8} {'':16} {'official':>8}")
    for name, file, cases in (("ijepa", "multiblock", images), ("jepa", "multiblock3d", clips)):
        if name in found:
            for case in cases(load(Path(found[name], "src", "masks", f"{file}.py"))):
                print(row(case), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
