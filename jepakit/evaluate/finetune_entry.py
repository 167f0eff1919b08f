"""The table of fine-tuning: the whole encoder learns, once from what was trained and once from scratch."""

import sys
from collections.abc import Callable
from typing import Any

from jepakit.data.views import alone
from jepakit.device import pick_device
from jepakit.evaluate import controls, features, table
from jepakit.evaluate.data import Division
from jepakit.evaluate.entry import Asked
from jepakit.evaluate.features import Reading
from jepakit.evaluate.finetune import finetune, pixels
from jepakit.evaluate.probes import Models, about, data_of, drawn, live, opened, prepared, shown

__all__ = ["drawn", "live", "opened", "prepared", "scored", "shown"]

Cell = Callable[[Division, Any, Reading], dict[str, Any]]
"""From the data, a protocol's settings and how samples are read to a cell."""


def scored(asked: Asked, models: Models, division: Division) -> dict[str, Any]:
    """The whole result. The models stay as they are: copies of them learn."""
    o, config = asked.options, asked.config
    device = pick_device(o.device)
    reading = Reading(config["data"], device, o.precision, asked.label, o.memory, alone=alone(config))
    clips = features.moving(division.test.source, reading, division.test.rows)
    rows = []
    for name, cell in _cells(models, clips).items():
        if not asked.during:
            print(f"{name}: learning from {len(division.fit.rows):,} samples", file=sys.stderr)
        cells = {each.name: cell(division, each.settings, reading) for each in asked.protocols}
        rows.append({"name": name, "width": 0, **cells})
    left = rows[0][asked.protocols[0].name]["skipped"]
    outcome = table.result(rows, asked.protocols, about(models, division, asked))
    return outcome | data_of(asked, division, tuple(left["fit"]), tuple(left["test"]))


def _cells(models: Models, clips: bool) -> dict[str, Cell]:
    """How each row of the table gets its score."""

    def learned(backbone: Any) -> Cell:
        return lambda d, s, how: finetune(backbone.to(how.device), d.fit, d.test, d.classes, s, how)

    def plain(change: features.Change | None) -> Cell:
        return lambda d, s, how: pixels(d.fit, d.test, d.classes, s, how, change)

    rows = [learned(models.trained), learned(models.random), plain(None)]
    rows += [plain(controls.mean_frame), plain(controls.frame_difference)] if clips else []
    return dict(zip(table.ROWS + table.CLIP_ROWS, rows, strict=False))
