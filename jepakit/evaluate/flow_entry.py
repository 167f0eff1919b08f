"""``jepakit eval protocol=flow``: how well a run's branch that infers motion tells optical flow, and the controls."""

import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jepakit.data import BadSample
from jepakit.device import pick_device
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import flow_table, sheet, table
from jepakit.evaluate.data import Part, tested
from jepakit.evaluate.entry import filled
from jepakit.evaluate.flow import SPEEDS, Tally, describe, measure, score, tally
from jepakit.evaluate.motion import LACKING, Estimator, Looking, Models, controls, load

ROWS = ("trained model", "untrained model")
"""Every table has both, and below them what needs no learning."""


@dataclass(frozen=True)
class FlowOptions:
    """What ``jepakit eval protocol=flow`` understands, beside ``run`` and ``data.<key>``."""

    protocol: str = "flow"
    weights: str = "target"
    """target (the teacher's backbone, where there is one) | online"""
    limit: int | None = 50_000
    """Pairs that are looked at, at most; null: all."""
    size: int | None = None
    """Short side that frames are brought to before the model sees them; null: as they are. Errors are always in pixels
    of the pairs as they are, and the controls see them so."""
    speeds: tuple[float, ...] = SPEEDS
    """Pixels from frame to frame that divide slow from fast: speeds=[1,4]"""
    pictures: int = 4
    """Pairs on the sheet that is drawn; 0: none."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N"""
    precision: str = "fp32"
    """fp32 | bf16 (autocast)"""


class Read(NamedTuple):
    """What was measured: a tally for each row, and a line for each pair that could not be."""

    rows: dict[str, Tally]
    skipped: list[str]


def command(run: Path, options: Mapping[str, Any]) -> int:
    """Evaluate the flow of a run: print the table, write it and a sheet of pictures into the run folder, return 0.

    Raises:
        ConfigError: options that there are not; a run that infers no motion; data that tell none.
        DataError: pairs of which none can be measured.
    """
    from jepakit.runs import open_run

    chosen, given = filled(FlowOptions, options)
    if list(chosen.speeds) != sorted(set(chosen.speeds)):
        raise ConfigError(f"speeds={list(chosen.speeds)}: each must be greater than the one before")
    config = open_run(run).config
    models = load(run, config, Looking(pick_device(chosen.device), chosen.precision, chosen.size, chosen.weights))
    part = tested(models.trained.config, given, chosen.limit)
    refuse_without_truth(part, given.get("name", models.trained.config["data"]["name"]))
    estimators = dict(zip(ROWS, models[:2], strict=True)) | controls()
    outcome = result(compare(part, estimators, chosen.speeds), part, models, chosen, given)
    sheet.show(flow_table.table(outcome))
    print(f"\nwritten to {table.write(outcome, run, 'flow')}")
    if chosen.pictures:
        from jepakit.pictures.flow import flow, pairs

        name = f"flow-{outcome['label'].replace(' ', '-')}.png" if given else "flow.png"
        print(flow(pairs(models.trained, part, chosen.pictures), run / "pictures" / name))
    return 0


def refuse_without_truth(part: Part, name: str) -> None:
    """Raise ConfigError for data that are no pairs of frames with true flow."""
    if not hasattr(part.source, "truth"):
        others = "data.name=world_pairs, or data.name=pairs data.root=FOLDER"
        raise ConfigError(f"data={name} has no pairs of frames with true flow: name some that has, {others}")


def compare(part: Part, estimators: Mapping[str, Estimator], speeds: Sequence[float] = SPEEDS) -> Read:
    """Every estimator on every pair, one pair at a time; those that cannot be read are left out and listed.

    Raises DataError where none can be measured.
    """
    found: dict[str, list[Any]] = {name: [] for name in estimators}
    skipped, source = [], part.source
    print(f"{', '.join(estimators)}: looking at {len(part.rows):,} pairs", file=sys.stderr)
    for index in part.rows.tolist():
        try:
            frames, truth = source[index][0], source.truth(index)  # pyright: ignore[reportAttributeAccessIssue]
        except BadSample as bad:
            skipped.append(str(bad))
            continue
        if truth is None:
            skipped.append(f"{source.describe(index)}: nobody tells its true flow")
            continue
        for name, estimate in estimators.items():
            found[name].append(measure(estimate(frames), truth, speeds))
    if len(skipped) == len(part.rows):
        raise DataError(f"none of {len(part.rows)} pairs can be measured" + f"; first: {skipped[0]}" * bool(skipped))
    return Read({name: tally(pairs) for name, pairs in found.items()}, skipped)


def result(read: Read, part: Part, models: Models, options: FlowOptions, given: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result as it is written, and what has to be known to read it."""
    config, trained = models.trained.config, read.rows[ROWS[0]]
    rows = [{"name": name, "flow": score(own, None if own is trained else trained)} for name, own in read.rows.items()]
    return {
        "format": 1,
        **{key: config.get(key) for key in ("run", "recipe", "seed")},
        "step": models.step,
        "weights": options.weights,
        "label": _place(config["data"], given),
        "precision": options.precision,
        "time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lacking": [LACKING] if len(rows) == len(ROWS) + 1 else [],
        "fit": {},
        "test": {
            **{"text": part.text.replace("samples", "pairs"), "samples": len(part.rows), "skipped": read.skipped},
            "given": {key: str(value) for key, value in given.items()},
        },
        "protocols": {"flow": describe(options.speeds, options.size)},
        "rows": rows,
    }


def _place(data: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Which data: scores on others stand in other columns of a comparison."""
    name, root = given.get("name", data["name"]), given.get("root", None if "name" in given else data.get("root"))
    return f"{name} {Path(str(root)).name}" if root else str(name)
