"""What has to be known to read a table of scores."""

from collections.abc import Mapping
from typing import Any


def remarks(result: dict[str, Any]) -> list[str]:
    """What has to be known to read the table: the data, what was chosen, and what went wrong."""
    said = [
        *dict.fromkeys(_measure(stamp, result["label"], result["classes"]) for stamp in result["protocols"].values())
    ]
    said += [f"test: {result['test']['text']}", f"fit:  {result['fit']['text']}"]
    for name, stamp in result["protocols"].items():
        said += REMARKS.get(stamp["kind"], _nothing)(name, stamp, result["rows"])
        said += [f"{name}: {row['name']}: {line}" for row in result["rows"] for line in row[name].get("said", ())]
    if looks(result) > 1:
        said.append(_looked(result))
    for part in ("test", "fit"):
        if skipped := result[part]["skipped"]:
            said.append(f"{len(skipped)} {part} samples could not be read; first: {skipped[0]}")
    return [*said, *dict.fromkeys(_interval(stamp) for stamp in result["protocols"].values()), *_conclusion(result)]


def _measure(stamp: dict[str, Any], label: str, classes: int) -> str:
    if stamp["measure"] == "mIoU":
        return f"mIoU: intersection over union, the mean over the classes that the test samples show, of {classes}"
    if stamp["measure"] == "RMSE":
        return "RMSE: root of the mean squared error, in the units of the data; lower is better"
    return f"top-1 for label {label}, one of {classes} values: chance is {1 / classes:.3f} where they are balanced"


def _interval(stamp: dict[str, Any]) -> str:
    if stamp["kind"] == "lowshot":
        return "in brackets: 95 % interval over subsets and test samples together"
    how = " (bootstrap)" if "bootstrap" in str(stamp.get("interval")) else ""
    return f"in brackets: 95 % interval over the test samples{how}, not over seeds"


def _nothing(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    return []


def _knn(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    return [f"{name}: k = {stamp['k']}, temperature {stamp['temperature']}"]


def _strength(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    word = "alpha" if stamp["kind"] == "ridge" else "C"
    said = [f"{name}: {each['name']} with {word} {each[name][word]:g}" for each in rows]
    early = [each["name"] for each in rows if each[name].get("unfinished")]
    return said + ([f"{name}: NOT converged within max_iter={stamp['max_iter']}: {', '.join(early)}"] if early else [])


def _probe(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    said = [_chosen(name, each["name"], each[name]) for each in rows]
    steps = rows[0][name].get("steps", FEW_STEPS)
    few = f"{name}: only {steps} steps: heads are hardly trained; set a smaller batch_size, or more epochs"
    return [few, *said] if steps < FEW_STEPS else said


def _depth(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    more = "{name}: {row}: relative error {abs_rel:.3f}, within a factor of 1.25: {delta:.1%}"
    return [more.format(name=name, row=row["name"], **row[name]) for row in rows]


def _segment(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    said = [f"{name}: {row['name']}: {row[name]['pixel_accuracy']:.1%} of the pixels are told right" for row in rows]
    return said + [_chosen(name, row["name"], row[name]) for row in rows if "lr" in row[name]]


def _lowshot(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    used = rows[0][name]["used"]
    spans = f"{min(used)}" if min(used) == max(used) else f"{min(used)} to {max(used)}"
    return [f"{name}: mean of {stamp['seeds']} subsets with {spans} samples of each class, {sum(used):,} in all"]


def _finetune(name: str, stamp: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    cell = rows[0][name]
    batch = stamp["batch_size"] * stamp["accumulate"]
    head = f"{name}: {cell['fit']:,} labels, {cell['steps']:,} steps of at most {batch}"
    return [head, *(_chosen(name, row["name"], row[name]) for row in rows)]


REMARKS = {"knn": _knn, "ridge": _strength, "logistic": _strength, "linear": _probe, "attentive": _probe}
REMARKS |= {"segment": _segment, "depth": _depth, "lowshot": _lowshot, "finetune": _finetune}
"""What is to be said of the rows of each kind of protocol."""


def _chosen(protocol: str, name: str, cell: dict[str, Any]) -> str:
    """What a probe was fitted with, how it was found, and whether the grid may have been too small."""
    tried = [each["held_out"] for each in cell["tried"]]
    best = (
        f"best of {len(tried)} on held-out fit samples, {min(tried):.3f} to {max(tried):.3f}" if tried else "as given"
    )
    lrs = sorted({each["lr"] for each in cell["tried"]})
    edge = "; at the edge of the grid: try others" if len(lrs) > 2 and cell["lr"] in (lrs[0], lrs[-1]) else ""
    head = "".join(f"{HEAD[key][cell[key]]}, " for key in HEAD if key in cell)
    return f"{protocol}: {name} with {head}lr {cell['lr']:g}, weight decay {cell['weight_decay']:g} ({best}{edge})"


FEW_STEPS = 500
"""Steps below which a probe has hardly begun."""

HEAD = {
    "layer": {"last": "the last layer", "last4": "the last layers"},
    "norm": {"none": "no norm", "batch": "batch norm"},
}
"""Words for what a head reads."""


def looks(result: dict[str, Any]) -> int:
    """Clips times views of a sample; results from before there were several have one."""
    return result.get("clips", 1) * result.get("views", 1)


def _looked(result: dict[str, Any]) -> str:
    """What became of a sample's clips and views."""
    counts = " x ".join(f"{result[key]} {key}" for key in ("clips", "views") if result[key] > 1)
    said = f"{counts} of each sample: "
    if not any(stamp["kind"] == "attentive" for stamp in result["protocols"].values()):
        return said + "their features are averaged"
    answers = "views of all clips at once" if result["across"] else "clips and views"
    return said + f"the answers for its {answers} are averaged"


def _conclusion(result: dict[str, Any]) -> list[str]:
    """Says plainly where the trained encoder is no better than a control."""
    trained, *controls = result["rows"]
    lower = {name: stamp.get("better") == "lower" for name, stamp in result["protocols"].items()}
    return [
        f"NOT clearly better: {name} of the {trained['name']} overlaps that of {control['name']} or lies below it"
        for name in result["protocols"]
        for control in controls
        if name in control and (trained[name]["low"] is None or as_good(trained[name], control[name], lower[name]))
    ]


def as_good(trained: Mapping[str, Any], control: Mapping[str, Any], lower: bool) -> bool:
    """Whether a control is as good, as far as the intervals tell; where there is one of the difference, ``ahead``, by
    that: of both on the same samples, which tells more. ``lower``: the score is an error."""
    ahead = (control.get("ahead") or {}).get("low")
    if ahead is not None:
        return ahead <= 0
    better, worse = (control, trained) if lower else (trained, control)
    low, high = better.get("low"), worse.get("high")
    return low is not None and high is not None and low <= high
