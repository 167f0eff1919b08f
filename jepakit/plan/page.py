"""A plan, for people."""

from collections.abc import Mapping
from typing import Any

from jepakit import listing

TIMES = (("days", 86400), ("hours", 3600), ("minutes", 60))
PREFIXES = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6))


def show(found: Mapping[str, Any], recipe: str) -> None:
    """Print a plan of ``jepakit.plan.estimate``: what is counted, what it needs, how long it takes, what is assumed."""
    counts, assumed = found["counts"], found["assumed"]
    print(f"plan of {recipe} on {assumed['gpus']} x {assumed['gpu']}\n")
    listing.table(("parameters", "trained", "not trained"), _parameters(counts))
    print(f"\nstrategy {found['why']}\n")
    held = {**found["memory"], "in all": sum(found["memory"].values())}
    listing.table(("memory of each process", ""), [(item, binary(size)) for item, size in held.items() if size])
    print()
    listing.table(("figure", "value"), [*_step(found), *_run(found)])
    print(f"\n{said(found)}")


def said(found: Mapping[str, Any]) -> str:
    """What was assumed, in a line."""
    assumed = found["assumed"]
    peak = scaled(found["peak"], "FLOP/s") if found["peak"] else "a peak that is not known in this precision"
    speed = f"{assumed['gpu']} reaches mfu={assumed['mfu']:g} of {peak}, has memory={assumed['memory']:g} GiB"
    wires = (
        f"per_machine={assumed['per_machine']}, network={assumed['network']:g} GB/s leave a machine for each of these"
    )
    return f"assumed: {speed}; {wires}"


def scaled(value: int | float, unit: str) -> str:
    """With a prefix that leaves few digits."""
    prefix, size = next(((name, size) for name, size in PREFIXES if value >= size), ("", 1.0))
    return f"{value / size:.4g} {prefix}{unit}"


def binary(size: int | float) -> str:
    """Bytes of memory."""
    unit, many = next(((name, n) for name, n in (("GiB", 2**30), ("MiB", 2**20)) if size >= n), ("KiB", 2**10))
    return f"{size / many:.2f} {unit}"


def lasting(seconds: int | float) -> str:
    """A time in the largest unit that there is two of."""
    unit, many = next(((name, n) for name, n in TIMES if seconds >= 2 * n), ("s", 1))
    return f"{seconds / many:.3g} {unit}"


def _parameters(counts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    still = ("teacher", "frozen")
    rows = [
        (part, *((" ", f"{n:,}") if part in still else (f"{n:,}", " "))) for part, n in counts["parameters"].items()
    ]
    return [*rows, ("in all", f"{counts['trained']:,}", f"{counts['frozen']:,}")]


def _step(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of samples and of steps."""
    counts, gpus = found["counts"], found["assumed"]["gpus"]
    samples, turns = counts["samples"], counts["turns"]
    parts = {**counts["forward"], "backward": counts["backward"]}
    shares = ", ".join(f"{part} {scaled(n / samples, 'FLOP')}" for part, n in parts.items() if n)
    mine = counts["flops"] * found["accumulate"] / turns
    micro = f"{found['accumulate']} x {samples} in each of {gpus} process{'es' * (gpus > 1)}"
    rows = [("samples of a step", f"{found['samples_per_step']:,}: {micro}")]
    rows += [("largest micro-batch that fits", f"about {found['largest_micro_batch']:,}")]
    rows += [("tokens of a sample", ", ".join(f"{name} {n:,}" for name, n in counts["tokens"].items()))]
    rows += [("operations of a sample", f"{scaled(counts['flops'] / samples, 'FLOP')}: {shares}")]
    if counts["again"]:
        rows += [("computed again, of a sample", scaled(counts["again"] / samples, "FLOP"))]
    rows += [("operations of a step", f"{scaled(mine * gpus, 'FLOP')}, {scaled(mine, 'FLOP')} in each process")]
    if turns > 1:
        rows += [("branches", f"{turns}, one a step: a step is the mean of theirs")]
    return rows


def _run(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of the whole."""
    rows = [(f"sent by each process: {what}", f"{scaled(n, 'B')} a step") for what, n in found["sent"].items()]
    if found["leaving_machine"]:
        leaves = f"{scaled(found['leaving_machine'], 'B')} a step, in {lasting(found['seconds_sending'])}"
        rows += [("leaves each machine", leaves)]
    rows += [("checkpoint", scaled(found["checkpoint"], "B"))]
    steps = f"{found['steps']:,}: " if found["steps"] else "not known: "
    rows += [("steps", f"{steps}{found['length_from']}")]
    if found["seconds_per_step"]:
        rows += [("time of a step", lasting(found["seconds_per_step"]))]
    if found["seconds"]:
        hours = found["seconds"] / 3600 * found["assumed"]["gpus"]
        rows += [("time of the run", f"{lasting(found['seconds'])}, {hours:,.{0 if hours >= 10 else 2}f} GPU hours")]
    return rows
