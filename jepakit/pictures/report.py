"""The pictures of a finished run: what it saw, how it went, what its features look like."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepakit.branch import Branch
from jepakit.branches import branches
from jepakit.data.views import alone
from jepakit.evaluate.data import held_out, tested
from jepakit.evaluate.features import Reading
from jepakit.evaluate.motion import Looking, Motion, infers_motion
from jepakit.log import JSONL
from jepakit.pictures.curves import curves
from jepakit.pictures.entry import picked, sheets_of_masks
from jepakit.pictures.features import features
from jepakit.pictures.flow import flow, pairs
from jepakit.pictures.spectrum import spectrum
from jepakit.protocols import Source


def report(
    config: Mapping[str, Any],
    folder: Path,
    backbones: Mapping[str, nn.Module],
    source: Source,
    device: torch.device,
    trained: Sequence[Branch] = (),
) -> list[Path]:
    """Draw ``masks.png``, ``curves.png``, ``spectrum.png`` and ``features.png`` into the run's folder ``pictures``, of
    clips also the moving ``masks.webp``, where a branch infers motion also ``flow.png``; returns their paths.

    Args:
        backbones: by the words that stand above their features.
        source: of the run (of its first branch, whose masks these are); pictures that it was not trained on are shown
            where it has any.
        trained: the branches of the run, with their figures.
    """
    config = next(iter(branches(config).values()))
    unseen, reading = held_out(source) or source, Reading(config["data"], device, alone=alone(config))
    shown = picked(unseen, config["data"]["size"])
    out = folder / "pictures"
    out.mkdir(exist_ok=True)
    return [
        *sheets_of_masks(config, shown, out / "masks.png"),
        curves(folder / JSONL, out / "curves.png", config),
        spectrum(folder / JSONL, backbones, unseen, reading, out / "spectrum.png"),
        features(backbones, shown[:, :, :1] if reading.alone else shown, reading, out / "features.png"),
        *_flow(trained, out / "flow.png", device),
    ]


def _flow(trained: Sequence[Branch], out: Path, device: torch.device) -> list[Path]:
    """Of the first branch that infers motion, on its own pairs."""
    for branch in trained:
        if infers_motion(branch.figure.jepa):
            motion = Motion(branch.figure.jepa, branch.config, Looking(device))
            return [flow(pairs(motion, tested(branch.config, {}, None)), out)]
    return []
