"""A run's scores on its report: each protocol's newest, beside what needs no learning and what was published."""

import math
from collections.abc import Mapping
from typing import Any

from jepakit.evaluate.published import matching
from jepakit.evaluate.recorded import Kind, Recorded, Score
from jepakit.evaluate.remarks import as_good
from jepakit.evaluate.sheet import text
from jepakit.pictures.captions import WORDS
from jepakit.pictures.page import Raw, bullets, details, figure, heading, paragraph, table

TRAINED = "trained"
WIDE, HIGH = 200, 16
"""Of the drawing of an interval, in its own units."""


def scores(run: Recorded) -> list[str]:
    """A table for each protocol, with its controls and intervals, and what it was measured on."""
    if not run.scores:
        return [paragraph("This run has not been evaluated yet.")]
    blocks = [block for kind, score in run.scores.items() for block in _kind(run, kind, score)]
    return [*blocks, *([bullets(run.remarks, "warn")] if run.remarks else [])]


def published(run: Recorded) -> list[str]:
    """The paper's numbers for such a run; nothing where there are none."""
    numbers = matching(run.config, run.config.get("published") or [])
    if not numbers:
        return []
    rows = [[each["measure"], f"{each['score']:g}", each["source"], _when(each)] for each in numbers]
    said = "They were measured by the paper's own protocol, on its own data: no target for a smaller run."
    return [heading("Published"), table(["measure", "score", "source", "for"], rows), paragraph(said)]


def _kind(run: Recorded, kind: Kind, score: Score) -> list[str]:
    lower = score.how["protocol"].get("better") == "lower"
    rows = {f"{TRAINED} encoder" if not lower else TRAINED: score.trained, **score.controls}
    most = max([each.get("high") or each.get("score") or 0.0 for each in rows.values()], default=1.0)
    cells = [[name, _number(cell), _interval(cell), Raw(drawn(cell, most))] for name, cell in rows.items()]
    label = f", label {kind.label}" if kind.label else ""
    unit = score.how["protocol"].get("unit") or score.how["protocol"].get("measure") or ""
    measured = f"{kind.weights} encoder{label}, step {score.step:,}; {unit}{', lower is better' * lower}".rstrip("; ")
    said = [f"{words} {score.how[part]['text']}" for part, words in _PARTS if score.how.get(part)]
    stamp = [[key, text(value)] for key, value in _flat(score.how["protocol"]).items()]
    several = [each.protocol for each in run.scores].count(kind.protocol) > 1
    told = f"{kind.protocol}: {kind.label}, {kind.weights} encoder" if several else kind.protocol
    return [
        heading(told),
        table(["of", "score", "95 % interval", "from zero"], cells, measured, "scores"),
        *_cautions(run, score, lower),
        *_picture(run, kind),
        paragraph("; ".join(said) + ". Intervals are over the test samples, not over seeds."),
        details(
            f"Protocol {kind.protocol}, as it is stamped into the result",
            [table(["key", "value"], stamp, "", "settings")],
        ),
    ]


_PARTS = (("test", "Tested on"), ("fit", "fitted on"))


def _picture(run: Recorded, kind: Kind) -> list[str]:
    """What the protocol drew of its newest score, where it draws (``segment``, ``depth``)."""
    path = run.folder / "pictures" / f"{kind.protocol}.png"
    if kind.protocol in WORDS or not path.is_file():
        return []
    alt = f"Sample pictures with what the probe of protocol {kind.protocol} tells of them, beside the truth"
    return [figure(path, alt, "The nearer to the truth, and the further from the controls, the better.")]


def _cautions(run: Recorded, score: Score, lower: bool) -> list[str]:
    """Where a control is as good, and where the run went on."""
    said = []
    if weak := [name for name, control in score.controls.items() if as_good(score.trained, control, lower)]:
        said.append(f"Not clearly better than {' and '.join(weak)}: the intervals overlap, or it lies behind.")
    if score.step < run.log.get("step", 0):
        said.append(f"Measured at step {score.step:,}; the run went on to {run.log['step']:,}.")
    return [bullets(said, "warn")] if said else []


def drawn(cell: Mapping[str, Any], most: float) -> str:
    """The score as a dot and its interval as a line, from zero to ``most``; the numbers stand beside it."""
    score = cell.get("score")
    if score is None or not math.isfinite(score) or most <= 0:
        return ""
    low, high = (cell[key] if cell.get(key) is not None else score for key in ("low", "high"))
    left, right, dot = (6 + (WIDE - 12) * min(max(value / most, 0.0), 1.0) for value in (low, high, score))
    middle = HIGH / 2
    return (
        f'<svg class="interval" viewBox="0 0 {WIDE} {HIGH}" aria-hidden="true">'
        f'<line class="rail" x1="6" x2="{WIDE - 6}" y1="{middle}" y2="{middle}"/>'
        f'<line class="span" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{dot:.1f}" cy="{middle}" r="4"/></svg>'
    )


def _number(cell: Mapping[str, Any]) -> str:
    return "not a number" if cell.get("score") is None else f"{cell['score']:.3f}"


def _interval(cell: Mapping[str, Any]) -> str:
    if cell.get("low") is None or cell.get("high") is None:
        return "-"
    return f"{cell['low']:.3f} to {cell['high']:.3f}"


def _when(number: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={text(value)}" for key, value in (number.get("when") or {}).items()) or "this recipe"


def _flat(stamp: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in stamp.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
    return flat
