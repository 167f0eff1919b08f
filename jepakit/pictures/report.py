"""A run's report: its pictures, and one page with all that there is to say of it.

``jepakit report run=FOLDER``, and at the end of every run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from jepakit import checkpoint
from jepakit.branches import branches
from jepakit.build import Figure, build, build_backbone
from jepakit.data import open_source
from jepakit.data.views import alone
from jepakit.device import pick_device
from jepakit.errors import CheckpointError, ConfigError, UserError, nearest
from jepakit.evaluate.data import held_out, tested
from jepakit.evaluate.features import Reading
from jepakit.evaluate.motion import Looking, Motion, infers_motion
from jepakit.log import JSONL
from jepakit.pictures.asked import oracle
from jepakit.pictures.curves import curves
from jepakit.pictures.entry import picked, sheets_of_masks
from jepakit.pictures.facts import examined
from jepakit.pictures.features import features
from jepakit.pictures.flow import flow, pairs
from jepakit.pictures.health import health
from jepakit.pictures.imagined import imagined
from jepakit.pictures.neighbours import neighbours
from jepakit.pictures.predictions import looked, sheet_of
from jepakit.pictures.sections import KEPT, PICTURES, Drawn, written
from jepakit.pictures.spectrum import spectrum
from jepakit.protocols import Source
from jepakit.runs import open_run

PAGE = "report.html"
OPTIONS = ("run", "out", "draw")


class Trained(NamedTuple):
    """A branch of a run as it was found, as ``jepakit.branch.Branch`` is while it trains."""

    name: str
    config: Mapping[str, Any]
    figure: Figure


def command(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """``jepakit report run=FOLDER [out=FILE.html] [draw=false]``: the page of a run, finished or not, with its pictures
    drawn anew (or, with ``draw=false``, as they are); what is missing is printed."""
    from jepakit.catalog import collect
    from jepakit.config import assignments

    given = assignments(argv)
    for key in given:
        if key not in OPTIONS:
            raise ConfigError(f"report knows no {key!r}{nearest(key, OPTIONS)}; it takes: run=, out=, draw=")
    if "run" not in given:
        raise ConfigError("report needs a run: jepakit report run=runs/...")
    collect(files)
    folder, out = Path(str(given["run"])), Path(str(given["out"])) if given.get("out") else None
    if out and out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out={out}: a report is a page, it ends in .html")
    if (anew := given.get("draw", True)) not in (True, False):
        raise ConfigError(f"draw={anew}: write draw=true or draw=false")
    config = open_run(folder).config
    drawn = found(config, folder) if anew else Drawn.kept(config, folder)
    path = written(drawn, out or folder / PAGE)
    for what, why in drawn.missing.items():
        print(f"missing: {what}: {why}")
    print(path)
    return 0


def refresh(folder: Path) -> Path | None:
    """Write the page of a run anew, with the scores that there are now and the pictures that there were; returns its
    path, None where no report was drawn yet."""
    if not (folder / PICTURES / KEPT).is_file():
        return None
    return written(Drawn.kept(open_run(folder).config, folder), folder / PAGE)


def report(
    config: Mapping[str, Any],
    folder: Path,
    backbones: Mapping[str, nn.Module],
    source: Source,
    device: torch.device,
    trained: Sequence[Any] = (),
    say: Callable[[str], Any] = print,
) -> list[Path]:
    """Draw the pictures of a run that has come to its end, and write its page; returns their paths, the page's last.

    What cannot be drawn, because data or a plugin refuse, is named in the page with the reason, and through ``say``.

    Args:
        backbones: by the words that stand above their features.
        source: of the run (of its first branch); pictures that it was not trained on are shown where it has any.
        trained: the branches of the run, with their figures.
    """
    drawn = draw(config, folder, backbones, lambda: source, device, trained)
    for what, why in drawn.missing.items():
        say(f"not drawn: {what}: {why}")
    page = written(drawn, folder / PAGE, finished=True)
    return [*(path for paths in drawn.pictures.values() for path in paths), page]


def found(config: Mapping[str, Any], folder: Path) -> Drawn:
    """The same of a run folder, at its newest checkpoint; without one what can be drawn all the same."""
    device = pick_device(config["trainer"]["device"], config["trainer"]["threads"])
    trained: list[Trained] = []
    backbones: dict[str, nn.Module] = {}
    missing, step = {}, 0
    try:
        built = build(config)
        step = checkpoint.restore(folder, built.jepa, None, config["trainer"]["verify"])
        if not step:
            raise CheckpointError("there is no checkpoint yet")
        built.jepa.to(device)
        trained = [Trained(name, each, built.figures[name]) for name, each in branches(config).items()]
        random = build_backbone(config)[0].to(device)
        backbones = {"trained encoder": built.jepa.target_backbone, "random encoder": random}
    except UserError as error:
        missing["all that needs trained weights"] = str(error)
    drawn = draw(config, folder, backbones, lambda: open_source(config["data"]), device, trained)
    drawn.missing.update(missing)
    drawn.said.update({"step": step} if step else {})
    drawn.keep()
    return drawn


def draw(
    config: Mapping[str, Any],
    folder: Path,
    backbones: Mapping[str, nn.Module],
    opened: Callable[[], Source],
    device: torch.device,
    trained: Sequence[Any],
) -> Drawn:
    """All pictures that a run has something for, by name, and what there was to say about them. Global random state is
    left alone."""
    (folder / PICTURES).mkdir(exist_ok=True)
    drawn = Drawn(config, folder, {}, {}, {})
    with torch.random.fork_rng(devices=[]):
        _draw(drawn, backbones, opened, device, trained)
    drawn.keep()
    return drawn


def _draw(
    drawn: Drawn,
    backbones: Mapping[str, nn.Module],
    opened: Callable[[], Source],
    device: torch.device,
    trained: Sequence[Any],
) -> None:
    config, folder, out = drawn.config, drawn.folder, drawn.folder / PICTURES
    first = next(iter(branches(config).values()))
    drawn.add("health", lambda: [health(examined(config, folder), out / "health.png")])
    drawn.add("curves", lambda: [curves(folder / JSONL, out / "curves.png", first)])
    try:
        source = opened()
        unseen = held_out(source) or source
        shown = picked(unseen, first["data"]["size"])
    except UserError as error:
        drawn.missing["all that needs the data"] = str(error)
        return
    reading = Reading(first["data"], device, alone=alone(first))
    for name, each in branches(config).items():
        clips = _own(each) if name and config["branches"][name]["data"] else shown
        path = out / (f"masks-{name}.png" if "masks" in drawn.pictures else "masks.png")
        drawn.add("masks", functools.partial(sheets_of_masks, each, clips, path))
    if backbones:
        log, stills = folder / JSONL, shown[:, :, :1] if reading.alone else shown
        drawn.add("spectrum", lambda: [spectrum(log, backbones, unseen, reading, out / "spectrum.png")])
        drawn.add("features", lambda: [features(backbones, stills, reading, out / "features.png")])
        drawn.add("neighbours", lambda: _neighbours(drawn, backbones, unseen, reading, out))
    if trained:
        _predictor(drawn, config, trained, device, out)
        drawn.add("flow", lambda: _flow(trained, out / "flow.png", device))


def _own(config: Mapping[str, Any]) -> torch.Tensor:
    source = open_source(config["data"])
    return picked(held_out(source) or source, config["data"]["size"])


def _neighbours(drawn: Drawn, backbones: Mapping[str, nn.Module], source: Source, reading: Reading, out: Path) -> list:
    path = out / "neighbours.png"
    drawn.said["neighbours"] = neighbours(backbones, source, reading, path)._asdict()
    return [path]


def _predictor(
    drawn: Drawn, config: Mapping[str, Any], trained: Sequence[Any], device: torch.device, out: Path
) -> None:
    """What it says of hidden tokens; where none is asked for hidden tokens, the page says so."""
    try:
        who = oracle(config, {each.name: each.figure.jepa for each in trained}, device)
    except ConfigError as error:
        drawn.said["predictor"] = str(error)
        return

    def both() -> list[Path]:
        seen = looked(who)
        drawn.said["predictions"] = seen.numbers
        drawn.pictures["predicted"] = [imagined(seen.answered, out / "predicted.png")]
        return [sheet_of(seen, out / "predictions.png")]

    drawn.add("predictions", both)


def _flow(trained: Sequence[Any], out: Path, device: torch.device) -> list[Path]:
    """Of the first branch that infers motion, on its own pairs."""
    for branch in trained:
        if infers_motion(branch.figure.jepa):
            motion = Motion(branch.figure.jepa, branch.config, Looking(device))
            return [flow(pairs(motion, tested(branch.config, {}, None)), out)]
    return []
