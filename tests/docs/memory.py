"""The tables of BENCHMARKS.md that say how much memory each recipe takes: ``python -m tests.docs.memory``.

The first is what ``jepakit plan recipe=NAME`` counts for one process with the recipe's own batch, with and without
activation checkpointing. The second, of recipes that a laptop trains, puts what is measured on this CPU beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepakit.bench.memory import step_bytes
from jepakit.bench.sides import of_config
from jepakit.bench.sweep import BETWEEN
from jepakit.catalog import collect
from jepakit.config import resolve
from jepakit.plan.count import step
from jepakit.plan.estimate import Hardware, plan
from jepakit.plan.memory import GIB

ONE = Hardware(gpus=1, per_machine=1, gpu="h100", memory=80, mfu=0.4, network=25.0)
AGAIN = ("encoder.checkpoint_blocks", "predictor.checkpoint_blocks")
CLIPS, WORLD = ["data=world_moving_plain", "data.side=112"], ["data=world", "data.side=32"]
LAPTOP = {
    "demo": [],
    "demo_video": [],
    "mcjepa_convnext_64px": [],
    "mcjepa_dense_64px": [],
    "vjepa_vitt16_small": CLIPS,
}
"""Recipes that are measured, with pictures that are made where they have none; all of 32 pixels besides."""


def planned() -> Iterator[str]:
    """Recipes in turn: what a process holds between steps, the most that it holds, with and without checkpointing."""
    yield "| recipe | samples | trained | held between steps | at most | the same with checkpointing | computed again |"
    yield "|---|---|---|---|---|---|---|"
    for name in names():
        plain, again = _plan(name, False), _plan(name, True)
        held = sum(plain["memory"][item] for item in BETWEEN)
        counts, row = (
            plain["counts"],
            [f"`{name}`", f"{plain['counts']['samples']:,}", f"{plain['counts']['trained']:,}"],
        )
        row += [f"{held / GIB:.2f}", f"{_all(plain):.2f}"]
        row += (
            ["", ""]
            if again["memory"] == plain["memory"]
            else [f"{_all(again):.2f}", f"{_more(again, counts):.0%}".replace("%", " %")]
        )
        yield f"| {' | '.join(row)} |"


def measured() -> Iterator[str]:
    """Small recipes on this CPU: a step's peak beyond what is held between steps, counted and measured."""
    yield "| recipe | samples | counted, MB | measured, MB | measured / counted |"
    yield "|---|---|---|---|---|"
    small = {name: LAPTOP.get(name, WORLD) for name in names() if name in LAPTOP or name.endswith("_32px")}
    for name, words in small.items():
        settings = [f"recipe={name}", *words, "trainer.device=cpu", "trainer.threads=1"]
        config = resolve([*settings, "data.workers=0"])
        items = _state(config)
        counted = sum(size for item, size in items.items() if item not in BETWEEN)
        with of_config(name, config, fixed=True) as side:
            side.take(2)
            found = step_bytes(side)
        yield f"| `{name}` | {side.samples} | {counted / 1e6:.0f} | {found / 1e6:.0f} | {found / counted:.2f} |"


def names() -> list[str]:
    """Recipes of papers and demos, without the comparisons that change one setting of another."""
    return sorted(name for name in collect().names("recipe") if "/" not in name)


def _plan(name: str, again: bool) -> dict[str, Any]:
    words = [f"recipe={name}"]
    config = resolve(words, complete=False)
    known = [key for key in AGAIN if key.partition(".")[2] in config[key.partition(".")[0]]]
    return plan(resolve([*words, *(f"{key}={str(again).lower()}" for key in known)], complete=False), ONE)


def _state(config: Mapping[str, Any]) -> dict[str, int]:
    from jepakit.plan.memory import state

    return state(step(config))


def _all(found: Mapping[str, Any]) -> float:
    return sum(found["memory"].values()) / GIB


def _more(found: Mapping[str, Any], plain: Mapping[str, Any]) -> float:
    """Operations that come on top, as a share of a step's."""
    return (found["counts"]["again"] - plain["again"]) / plain["flops"]


def main(parts: Sequence[Iterator[str]]) -> None:
    """Print the tables, line by line."""
    for lines in parts:
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main([planned(), measured()])
