"""``jepakit eval protocol=flow``: how well a run's branch that infers motion tells optical flow, and the controls."""

import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import nn

from jepakit.branches import branches
from jepakit.data import BadSample
from jepakit.device import pick_device
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import flow_table, sheet
from jepakit.evaluate.data import Part, tested
from jepakit.evaluate.entry import Asked
from jepakit.evaluate.flow import FACTS, Tally, measure, score, tally
from jepakit.evaluate.motion import LACKING, Estimator, Looking, Models, compared, controls, load, moving_branch
from jepakit.evaluate.protocol import positive

ROWS = ("trained model", "untrained model")
"""Every table has both, and below them what needs no learning."""


@dataclass(frozen=True)
class Settings:
    """What the flow's errors depend on, beside the pairs; they are always in pixels of the pairs as they are, and the
    controls see them so. ``pictures`` are pairs on the sheet that is drawn."""

    size: int | None
    speeds: tuple[float, ...]
    pictures: int
    FACTS: ClassVar[dict[str, Any]] = FACTS

    def __post_init__(self) -> None:
        positive(self, "size", "speeds")
        if list(self.speeds) != sorted(set(self.speeds)):
            raise ValueError(f"speeds={list(self.speeds)}: each must be greater than the one before")


class Read(NamedTuple):
    """What was measured: a tally for each row, and a line for each pair that could not be."""

    rows: dict[str, Tally]
    skipped: list[str]


def prepared(asked: Asked) -> tuple[Models, Part]:
    """Models of a run as it lies in its folder, and the pairs. Raises ConfigError for one that infers no motion."""
    models = load(asked.run, asked.config, _looking(asked))
    return models, _pairs(asked, models.trained.config)


def live(asked: Asked, model: nn.Module, step: int) -> Models:
    """Of a training that goes on; nothing of ``model`` is changed. Raises ConfigError for one that infers no motion."""
    return compared(asked.config, model, _looking(asked), step)


def opened(asked: Asked, model: Any) -> Part:
    """The pairs of a training that goes on. Raises ConfigError for one that infers no motion, and for data that tell
    none."""
    return _pairs(asked, branches(asked.config)[moving_branch(asked.config, model)[0]])


def _pairs(asked: Asked, config: Mapping[str, Any]) -> Part:
    """The pairs that are measured, of the branch with this configuration."""
    part = tested(config, asked.given, asked.options.limit)
    refuse_without_truth(part, asked.given.get("name", config["data"]["name"]))
    return part


def scored(asked: Asked, models: Models, part: Part) -> dict[str, Any]:
    """The whole result. Raises DataError for pairs of which none can be measured."""
    estimators = dict(zip(ROWS, models[:2], strict=True)) | controls()
    return result(compare(part, estimators, asked.protocols[0].settings.speeds), part, models, asked)


def shown(outcome: Mapping[str, Any]) -> None:
    """Print the table."""
    sheet.show(flow_table.table(outcome))


def drawn(asked: Asked, models: Models, part: Part, outcome: Mapping[str, Any]) -> list[Path]:
    """A sheet of pictures in the run's folder."""
    from jepakit.pictures.flow import flow, pairs

    count = asked.protocols[0].settings.pictures
    name = f"flow-{outcome['label'].replace(' ', '-')}.png" if asked.given else "flow.png"
    return [flow(pairs(models.trained, part, count), asked.run / "pictures" / name)] if count else []


def _looking(asked: Asked) -> Looking:
    o = asked.options
    return Looking(pick_device(o.device), o.precision, asked.protocols[0].settings.size, o.weights)


def refuse_without_truth(part: Part, name: str) -> None:
    """Raise ConfigError for data that are no pairs of frames with true flow."""
    if not hasattr(part.source, "truth"):
        others = "data.name=world_pairs, or data.name=pairs data.root=FOLDER"
        raise ConfigError(f"data={name} has no pairs of frames with true flow: name some that has, {others}")


def compare(part: Part, estimators: Mapping[str, Estimator], speeds: Sequence[float]) -> Read:
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


def result(read: Read, part: Part, models: Models, asked: Asked) -> dict[str, Any]:
    """The whole result as it is written, and what has to be known to read it."""
    config, trained = models.trained.config, read.rows[ROWS[0]]
    rows = [{"name": name, "flow": score(own, None if own is trained else trained)} for name, own in read.rows.items()]
    return {
        "format": 1,
        **{key: config.get(key) for key in ("run", "recipe", "seed")},
        "step": models.step,
        "weights": asked.options.weights,
        "label": _place(config["data"], asked.given),
        "precision": asked.options.precision,
        "time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lacking": [LACKING] if len(rows) == len(ROWS) + 1 else [],
        "fit": {},
        "test": {
            **{"text": part.text.replace("samples", "pairs"), "samples": len(part.rows), "skipped": read.skipped},
            "given": {key: str(value) for key, value in asked.given.items()},
        },
        "protocols": {"flow": asked.protocols[0].stamp() | {"encoder": asked.options.weights}},
        "rows": rows,
    }


def _place(data: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Which data: scores on others stand in other columns of a comparison."""
    name, root = given.get("name", data["name"]), given.get("root", None if "name" in given else data.get("root"))
    return f"{name} {Path(str(root)).name}" if root else str(name)
