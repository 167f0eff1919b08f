"""What was measured, for people."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from jepakit import listing
from jepakit.bench.numbers import growth

Side = Mapping[str, Any]


def show(found: Mapping[str, Any]) -> None:
    """Print a result: who was timed, parts, figures of the whole, ratios; or sweeps."""
    if "sweeps" in found:
        return _sweeps(found)
    sides: Sequence[Side] = found["sides"]
    names = list(ascii_uppercase[: len(sides)])
    for letter, side in zip(names, sides, strict=True):
        print(f"{letter + '  ' if len(sides) > 1 else ''}{side['label']}")
    print()
    _parts(sides, names)
    print()
    _whole(sides, names)
    print(f"\npeak memory of the process: {found['memory_gib']:.2f} GiB")
    if found["clock"] == "cpu":
        print("all times are CPU time of this process: what it waits for, and what workers do, is not in them")
    if found["fixed"]:
        print("the same batches were taken again and again, so that there was nothing to wait for")
    for each in found["ratios"]:
        print(_ratio(each, names))
    for letter, side in zip(names, sides, strict=True):
        if side.get("roofline"):
            print(f"\nroofline{' of ' + letter if len(sides) > 1 else ''}: {_limits(side)}")
            _roofline(side["roofline"])


def _parts(sides: Sequence[Side], names: Sequence[str]) -> None:
    known = list(dict.fromkeys(part for side in sides for part in side["parts"]))
    heads = [
        f"{letter} {word}" if len(sides) > 1 else word for letter in names for word in ("ms", "quartiles", "share")
    ]
    rows = [(part, *(cell for side in sides for cell in _part(side, part))) for part in known]
    last = [cell for side in sides for cell in (*_times(side["step"]["seconds"]), "100.0 %")]
    listing.table(("part", *heads), [*rows, ("step", *last)])


def _part(side: Side, part: str) -> tuple[str, str, str]:
    if part not in side["parts"]:
        return "-", "", ""
    found = side["parts"][part]
    return (*_times(found["seconds"]), f"{found['share']:.1%}".replace("%", " %"))


def _times(seconds: Mapping[str, float]) -> tuple[str, str]:
    return number(1e3 * seconds["median"]), between(1e3 * seconds["low"], 1e3 * seconds["high"])


def _whole(sides: Sequence[Side], names: Sequence[str]) -> None:
    rows = [("device", *(_device(side) for side in sides))]
    rows += [("steps", *(f"{side['step']['count']} of {side['samples']} {side['unit']}" for side in sides))]
    rows += [("speed", *(_speed(side) for side in sides))]
    rows += [("FLOPs a step", *(scaled(side["flops_per_step"], "FLOP") for side in sides))]
    rows += [("achieved", *(scaled(side["flops_per_second"], "FLOP/s") for side in sides))]
    rows += [("peak", *(f"{scaled(side['peak'], 'FLOP/s')}, {side['peak_said']}" for side in sides))]
    rows += [("MFU", *("-" if side["mfu"] is None else f"{100 * side['mfu']:.1f} %" for side in sides))]
    if any(side["gpu_memory_gib"] for side in sides):
        rows += [("GPU memory", *(f"{side['gpu_memory_gib'] or 0:.2f} GiB" for side in sides))]
    if any(side["syncs"] is not None for side in sides):
        rows += [("host synchronisations", *(_syncs(side) for side in sides))]
    listing.table(("in all", *(names if len(sides) > 1 else [""])), rows)


def _device(side: Side) -> str:
    threads = f", {side['threads']} thread{'s' * (side['threads'] > 1)}" * (side["device"] == "cpu")
    return f"{side['device']}, {side['precision']}{threads}{', compiled' * side['compiled']}"


def _syncs(side: Side) -> str:
    """How often a step waits for its GPU, and where."""
    if side["syncs"] is None:
        return "-"
    where = ", ".join(f"{place} x {count}" if count > 1 else place for place, count in side["syncs"].items())
    return f"{sum(side['syncs'].values())} a step" + f": {where}" * bool(where)


def _speed(side: Side) -> str:
    speed = side["samples_per_second"]
    return f"{number(speed['median'])} {side['unit']}/s {between(speed['low'], speed['high'])}"


def _ratio(found: Mapping[str, Any], names: Sequence[str]) -> str:
    said = f"{names[found['of']]} is {found['median']:.3f} times as fast as {names[found['to']]}"
    sure = f"with {100 * found['confidence']:.0f} % confidence, {found['pairs']} pairs of rounds"
    return f"{said} per sample [{found['low']:.3f}, {found['high']:.3f}] ({sure})"


def _sweeps(found: Mapping[str, Any]) -> None:
    """Of each value what a sample takes."""
    print(found["recipe"])
    for each in found["sweeps"]:
        print(f"\n{each['key']}, on {_device(each)}")
        unit, rises = each["unit"], growth(each["points"])
        heads = (each["key"], *([each["axis"]] if each["axis"] != each["key"] else []), f"ms/{unit}", "quartiles")
        heads += ("grows as", f"FLOPs/{unit}", "context tokens", f"MB/{unit}", f"counted MB/{unit}")
        rows = [_point(each, point, rise) for point, rise in zip(each["points"], rises, strict=True)]
        listing.table(heads, rows)
    print(
        "\ngrows as: the exponent of time from the value before; MB: peak of a step beyond what is held between steps,"
    )
    print("by the allocator's events (on a GPU by its counter), beside what jepakit plan counts for a GPU")
    if found["clock"] == "cpu":
        print("all times are CPU time of this process")


def _point(sweep: Mapping[str, Any], point: Mapping[str, Any], rise: float | None) -> tuple[str, ...]:
    at = [f"{point['at']:,.0f}"] if sweep["axis"] != sweep["key"] else []
    grows = "" if rise is None else f"x^{rise:.2f}"
    memory = [number(point["memory"][kind] / point["samples"] / 1e6) for kind in ("step", "planned")]
    counted = (scaled(point["flops"], "FLOP"), f"{point['tokens']['context']:,}", *memory)
    return (point["value"], *at, *_times(point["seconds"]), grows, *counted)


def _limits(side: Side) -> str:
    limits = side["roofline"]["limits"]
    peak = f"{scaled(limits['flops'], 'FLOP/s')} of products in {side['precision']}"
    return f"{peak}, {scaled(limits['bandwidth'], 'B/s')} of a copy, {1e6 * limits['call']:.1f} us a call, all measured"


def _roofline(found: Mapping[str, Any]) -> None:
    """Of each part what it computes and moves, and how near to the limits that is."""
    heads = ("part", "ms", "FLOPs", "bytes", "FLOP/B", "calls", "of peak", "of bandwidth", "of its roof", "bound by")
    listing.table(heads, [_beside(name, each) for name, each in (*found["parts"].items(), ("step", found["step"]))])
    print("bytes are the inputs and outputs of every operation: more than come from memory where caches keep them;")
    print("roof: min(peak, FLOP/B x bandwidth); bound by: what would take longest at the machine's limit")


def _beside(name: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    does = scaled(each["flops"], "FLOP") if each["flops"] else "-"
    shares = (f"{100 * each[share]:.1f} %" for share in ("of_peak", "of_bandwidth", "roof"))
    counted = (does, scaled(each["bytes"], "B"), number(each["intensity"]), f"{each['calls']:,}")
    return (name, number(1e3 * each["seconds"]), *counted, *shares, each["bound"])


def number(value: float) -> str:
    """Three digits, as far as they are before the point all of it."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def between(low: float, high: float) -> str:
    """From here to there."""
    return f"[{number(low)}, {number(high)}]"


def scaled(value: int | float | None, unit: str) -> str:
    """With a prefix that leaves few digits; a dash where nobody knows."""
    if value is None:
        return "-"
    prefix, size = next(((p, s) for p, s in (("P", 1e15), ("T", 1e12), ("G", 1e9)) if value >= s), ("M", 1e6))
    return f"{number(value / size)} {prefix}{unit}"
