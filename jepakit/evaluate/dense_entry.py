"""The table of a dense probe: maps told from frozen patch tokens, beside what needs no learning."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepakit.data.views import alone
from jepakit.device import pick_device
from jepakit.evaluate import cache, table
from jepakit.evaluate.data import Division, divide
from jepakit.evaluate.dense import Dense
from jepakit.evaluate.dense_read import Kept, always, mapped, read
from jepakit.evaluate.entry import Asked
from jepakit.evaluate.features import Reading
from jepakit.evaluate.probes import Models, about, data_of, live, loaded, shown
from jepakit.evaluate.protocol import KINDS
from jepakit.protocols import Source

__all__ = ["drawn", "live", "opened", "prepared", "scored", "shown"]

ROWS = (*table.ROWS, "constant")
"""The last one tells each place's most frequent class, or its mean depth, whatever the picture."""


class Opened(NamedTuple):
    """What is fitted on and what is tested on; and, once it is scored, what was read of the test samples, and what each
    row tells of the first of them."""

    division: Division
    test: list[Dense]
    told: dict[str, list[Tensor]]


def prepared(asked: Asked) -> tuple[Models, Opened]:
    """Models of a run as it lies in its folder, and its data, which is opened first."""
    data = opened(asked)
    return loaded(asked), data


def opened(asked: Asked, model: Any = None) -> Opened:
    """Raises DataError for data without the map."""
    o = asked.options
    return Opened(divide(asked.config, asked.given, o.fit_root, map_of(asked), o.limit, names_of), [], {})


def map_of(asked: Asked) -> str:
    """The name of the map that is told."""
    return asked.options.label or asked.protocols[0].settings.FACTS["map"]


def names_of(source: Source, name: str) -> tuple[str, ...]:
    """The classes of a map, none of one of numbers. Raises DataError where the source has no such map."""
    return mapped(source, name) or (f"{type(source).__name__}, in its own unit",)  # depths of two sources are not alike


def scored(asked: Asked, models: Models, data: Opened) -> dict[str, Any]:
    """The whole result; the answers for the first test samples are kept in ``data``."""
    (protocol,), o, config, division = asked.protocols, asked.options, asked.config, data.division
    device, name = pick_device(o.device), map_of(asked)
    reading = Reading(config["data"], device, o.precision, name, o.memory, clips=o.clips, alone=alone(config))
    rows, skipped, ends = [], ((), ()), []
    data.told.clear()  # of what was scored before
    for row, (backbone, control) in _rows(models).items():
        kept = always if control else _kept(asked, backbone, protocol.settings.levels, backbone is models.trained)
        if not asked.during:
            print(f"{row}: reading {len(division.fit.rows):,} + {len(division.test.rows):,} samples", file=sys.stderr)
        levels = protocol.settings.levels
        ends = [read(backbone.to(device), part, reading, name, levels, control, kept) for part in division[:2]]
        cell = protocol.score(*ends, division.classes, protocol.settings, device, data.told.setdefault(row, []))
        rows.append({"name": row, "width": ends[0].tokens.shape[-1], protocol.name: cell})
        skipped = ends[0].skipped, ends[1].skipped
    constant = KINDS[protocol.kind].get("constant")
    cell = constant(*ends, division.classes, protocol.settings, device, data.told.setdefault(ROWS[3], []))
    rows.append({"name": ROWS[3], "width": 0, protocol.name: cell})
    data.test[:] = ends[1:]
    outcome = table.result(rows, [protocol], about(models, division, asked) | {"label": name})
    return outcome | data_of(asked, division, *skipped)


def _kept(asked: Asked, backbone: nn.Module, levels: str, trained: bool) -> Kept:
    """Tokens are kept in the run's folder, but those of weights that change all the time."""
    limit = 0.0 if trained and asked.during else asked.options.cache
    if not limit:
        return always
    folder, own = cache.Cache(asked.run / "evaluate" / "features", limit), cache.weights(backbone)
    return lambda part, reading, compute: folder(cache.key(f"tokens of {levels}", part, reading, own), compute)


def _rows(models: Models) -> dict[str, tuple[nn.Module, bool]]:
    """By the names of rows the backbone, and whether its grid alone is wanted, for raw pixels."""
    return dict(zip(ROWS, ((models.trained, False), (models.random, False), (models.trained, True)), strict=False))


def drawn(asked: Asked, models: Models, data: Opened, outcome: dict[str, Any]) -> list[Path]:
    """A sheet of some test samples, their maps, and what each row tells of them."""
    from jepakit.pictures.maps import examples, maps

    told = {row: torch.cat(answers) for row, answers in data.told.items()}
    source: Any = data.division.test.source
    shown_ = examples(data.division.test, data.test[0], told)
    return [maps(shown_, asked.run / "pictures" / f"{asked.protocols[0].name}.png", source.maps[map_of(asked)])]
