"""The table of a run's flow: what was learned, beside what needs no learning."""

from collections.abc import Mapping
from typing import Any

from jepakit.evaluate.sheet import Sheet


def table(result: Mapping[str, Any]) -> Sheet:
    """A row for each estimator, a column for each measure that has pixels; the first column says its interval."""
    cells = {row["name"]: row["flow"]["measures"] for row in result["rows"]}
    first, *others = next(iter(cells.values()))
    rows = [
        [row, cell(first, own[first], True), *(cell(name, own[name]) for name in others)] for row, own in cells.items()
    ]
    records = [{"row": row} | {name: own[name]["score"] for name in (first, *others)} for row, own in cells.items()]
    return Sheet(["", f"{first} in px", *others], rows, remarks(result), records)


def cell(name: str, told: Mapping[str, Any], whole: bool = False) -> str:
    """Pixels, of outliers per cent; ``whole`` with its interval, where there is one."""
    if told["score"] is None:
        return "nan"
    if name.startswith("Fl"):
        return f"{told['score']:.1%}"
    interval = f" [{told['low']:.3f}, {told['high']:.3f}]" if whole and told["low"] is not None else ""
    return f"{told['score']:.3f}{interval}"


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the table: the measures, the data, and what went wrong."""
    first, how, test = result["rows"][0]["flow"], result["protocols"]["flow"], result["test"]
    outlier, pairs = how["outlier"], first["pairs"]
    said = [
        f"EPE: end-point error, lower is better; mean over {first['pixels']:,} known pixels of {pairs:,} "
        f"pair{'s' * (pairs > 1)}, each pixel counts alike, as in the benchmarks of Sintel and KITTI",
        "s and numbers: EPE of the pixels that go so far from frame to frame; zero flow's EPE is their mean speed",
        f"Fl-all: pixels off by more than {outlier['pixels']:g} px and more than {outlier['share']:.0%} of their way",
        f"test: {test['text']}" + f"; the model sees their short side as {how['size']} pixels" * bool(how["size"]),
    ]
    if test["skipped"]:
        said.append(f"{len(test['skipped'])} pairs could not be measured; first: {test['skipped'][0]}")
    interval = "in brackets: 95 % interval over the pairs (bootstrap), not over seeds"
    return [
        *said,
        interval if pairs > 1 else "of one pair there is no interval",
        *result["lacking"],
        *conclusion(result),
    ]


def conclusion(result: Mapping[str, Any]) -> list[str]:
    """Says plainly where the trained model is not clearly ahead of a control on the same pairs."""
    trained, *controls = result["rows"]
    return [
        f"NOT clearly better: the {trained['name']} than {control['name']} on the same pairs ({said})"
        for control in controls
        if (said := behind(control["flow"]["ahead"]))
    ]


def behind(ahead: Mapping[str, float | None]) -> str:
    """Why it is not clearly ahead; empty where it is."""
    low, high = ahead["low"], ahead["high"]
    if low is None or high is None:
        return "one pair tells nothing of others"
    return "" if low > 0 else f"its EPE is lower by {low:.3f} to {high:.3f} px"
