"""``jepakit show masks`` and ``show views``: what a recipe would train on, before anything is trained; with ``--audit``
on average."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from jepakit.audit import Counts, audit
from jepakit.branches import branches
from jepakit.build import ask, draw, make, refuse, view_shape
from jepakit.data import BadSample, open_source
from jepakit.data.views import CentreView
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.options import DataOptions
from jepakit.pictures.audit import page
from jepakit.pictures.curves import curves
from jepakit.pictures.flow import flow, pairs
from jepakit.pictures.masks import masks
from jepakit.pictures.strip import SUFFIXES, strip
from jepakit.pictures.views import views
from jepakit.protocols import Masker, Source
from jepakit.seeds import generator
from jepakit.starved import RULES, Finding, findings
from jepakit.types import Grid, Mask

ROWS, CLIPS = 6, 2
"""Pictures on a sheet, and clips of a picture that moves."""

MOVING = ".webp"
"""What that is written as, where nobody asks for something else: a third of a GIF."""

AUDIT = {"batches": 200}
"""What can be asked of an audit, with its default: the number of batches that are drawn."""


def command(what: str, config: Mapping[str, Any], out: Path | None = None) -> Path:
    """Draw ``masks`` or ``views`` (for a configuration, which need not name data), ``curves`` or ``flow`` (of a run).

    Without ``out`` the picture goes to the run's folder ``pictures``, or here if there is no run. Masks of clips are
    drawn twice, as a sheet and as a strip that moves, and the first path is printed; with an ``out`` whose suffix is
    one of ``strip.SUFFIXES`` only the strip is. Returns the (last) path.

    Raises ConfigError for anything else, and where the masker finds no room on the grid.
    """
    if what not in DRAW:
        raise ConfigError(f"show {what}: there is no such picture{nearest(what, DRAW)}; known: {', '.join(DRAW)}")
    return DRAW[what](config, out or _folder(config) / f"{what}.png")


def picked(source: Source, size: int, count: int = ROWS) -> UInt8[Tensor, "B C T H W"]:
    """A few readable samples as evaluation views, always the same ones. Raises DataError where there are none."""
    view, found = CentreView(size), []
    for index in torch.randperm(len(source), generator=generator("pictures")).tolist():
        try:
            found.append(view.fit(view.take(source[index][0], generator("pictures"))[0]))
        except BadSample:
            continue  # counted where it matters: this sheet only needs some that can be read
        if len(found) == count:
            break
    if not found:
        raise DataError(f"none of {len(source)} samples can be read; the first is {source.describe(0)}")
    return torch.stack(found)


def audited(config: Mapping[str, Any], asked: Mapping[str, Any], out: Path | None = None) -> Path:
    """Draw and write down what the configuration's masker does on average, and print the verdict.

    ``asked`` holds ``batches``, the number that are drawn. No data is opened. Without ``out`` the page goes where
    ``command`` would put it; the numbers lie beside it, as JSON. Returns the page's path.

    Raises ConfigError for anything else in ``asked``, and where the masker finds no room on the grid.
    """
    batches = _batches(asked)
    grid = _grid(config, *view_shape(config["data"]))
    masker, name = masker_of(config, grid), config["masker"]["name"]
    draw(masker, name, grid, config["data"]["batch_size"])
    counts = refuse(f"masker {name!r}", audit, masker, grid, config["data"]["batch_size"], batches, config["seed"])
    out = out or _folder(config) / "audit.png"
    verdict = [findings(each) for each in counts]
    page(counts, config["masker"], out)
    out.with_suffix(".json").write_text(json.dumps(as_json(config, counts, verdict), indent=1))
    for number, found in enumerate(verdict, 1):
        print("\n".join([f"question {number}"] * (len(verdict) > 1) + [each.line for each in found]))
    return out


def as_json(config: Mapping[str, Any], counts: Sequence[Counts], verdict: Sequence[list[Finding]]) -> dict[str, Any]:
    """All that was counted and found, with what it was counted for."""
    first = counts[0]
    about = {"recipe": config.get("recipe"), "masker": config["masker"], "grid": list(first.grid)}
    about |= {"seed": config["seed"], "batch_size": first.samples, "batches": len(first.kept), "rules": RULES}
    questions = [
        each.numbers() | {"findings": [finding._asdict() for finding in found]}
        for each, found in zip(counts, verdict, strict=True)
    ]
    return about | {"questions": questions}


def _batches(asked: Mapping[str, Any]) -> int:
    for key in asked:
        if key not in AUDIT:
            raise ConfigError(f"unknown key 'audit.{key}'{nearest(key, AUDIT)}; known: {', '.join(AUDIT)}")
    batches = asked.get("batches", AUDIT["batches"])
    if not isinstance(batches, int) or isinstance(batches, bool) or batches < 1:
        raise ConfigError(f"audit.batches={batches}: a whole number from 1 on")
    return batches


def drawn(config: Mapping[str, Any], grid: Grid, count: int) -> list[Mask]:
    """Masks for the first ``count`` samples of a step: a whole batch is drawn, since contexts are cut to its shortest.

    Raises ConfigError where the masker finds no room.
    """
    batch = max(count, config["data"]["batch_size"])
    rng, who = generator(config["seed"], "pictures"), f"masker {config['masker']['name']!r}"
    return [_first(mask, count) for mask in ask(who, masker_of(config, grid), grid, batch, rng)]


def _first(mask: Mask, count: int) -> Mask:
    cut = {name: value[:count] for name, value in mask._asdict().items() if isinstance(value, torch.Tensor)}
    return mask._replace(**cut)


def masker_of(config: Mapping[str, Any], grid: Grid) -> Masker:
    """The masker of a configuration, for a grid of tokens, without the rest of the model."""
    shape = view_shape(config["data"])
    return make("masker", config["masker"], grid=grid, channels=shape[0], view_shape=shape, batch_ratio=1.0)


def _grid(config: Mapping[str, Any], channels: int, *clip: int) -> Grid:
    """The grid of tokens; it does not depend on the encoder's width, so there is no need of the whole model."""
    tokenizer = make("tokenizer", config["tokenizer"], channels=channels, encoder_width=4)
    return refuse(f"tokenizer {config['tokenizer']['name']!r}", tokenizer.grid, *clip)


def _masks(config: Mapping[str, Any], out: Path) -> Path:
    """One file or two for each branch. Returns the last one, and prints the others."""
    written = []
    for name, each in branches(config).items():
        data = _data(each)
        pictures, moves = picked(open_source(data), data["size"]), out.suffix.lower() in SUFFIXES
        if moves and looked_at(each, pictures)[0].shape[2] == 1:
            raise ConfigError(f"out={out}: nothing moves in data={data['name']}, whose samples have one frame")
        place = out if not written else out.with_stem(f"{out.stem}-{name}")
        written += [strip_of_masks(each, pictures, place)] if moves else sheets_of_masks(each, pictures, place)
    print("".join(f"{path}\n" for path in written[:-1]), end="")
    return written[-1]


def sheets_of_masks(config: Mapping[str, Any], pictures: UInt8[Tensor, "B C T H W"], out: Path) -> list[Path]:
    """What the configuration's masker would show and ask of ``pictures``; of clips also beside it as a strip."""
    still = masks(*_asked(config, pictures, out))
    moves = looked_at(config, pictures)[0].shape[2] > 1
    return [still, strip_of_masks(config, pictures, out.with_suffix(MOVING))] if moves else [still]


def strip_of_masks(config: Mapping[str, Any], pictures: UInt8[Tensor, "B C T H W"], out: Path) -> Path:
    """The same of the first clips, as a picture that moves."""
    return strip(*_asked(config, pictures[:CLIPS], out))


def looked_at(config: Mapping[str, Any], pictures: UInt8[Tensor, "B C T H W"]) -> list[UInt8[Tensor, "B C _ H W"]]:
    """The samples, for each view that looks at a single frame of a clip that frame; others look at all of it."""
    views = (config.get("views") or {"": {}}).values()
    frames = [view.get("frame") for view in views for _ in range(view.get("count", 1))]
    return [pictures if number is None else pictures[:, :, number : number + 1] for number in frames]


def _asked(config: Mapping[str, Any], pictures: Tensor, out: Path) -> tuple[Any, list[Mask], Grid, Path, str]:
    """The arguments of ``masks`` and of ``strip``."""
    views = looked_at(config, pictures)
    grid = _grid(config, *views[0].shape[1:])
    found = drawn(config, grid, len(pictures))
    count = 1 + max(max((m.context_view, *_several(m.target_view))) for m in found)
    shown = [*views, *views[:1] * count][:count]
    return shown[0] if count == 1 else shown, found, grid, out, _caption(config, grid, found)


def _caption(config: Mapping[str, Any], grid: Grid, found: Sequence[Mask]) -> str:
    """Which masker, and how much of the grid its contexts and target blocks are."""
    masker = config["masker"]
    name = f"{masker['name']} ({masker['mode']})" if "mode" in masker else masker["name"]
    context = [1.0 if mask.context is None else mask.context.shape[1] / grid.size for mask in found]
    asked = [None if mask.imagined is None else mask.imagined.shape for mask in found]
    blocks = [q for shape in asked for q in ([grid.size] if shape is None else [shape[2]] * shape[1])]
    sizes = " x ".join(map(str, grid if grid.t > 1 else grid[1:]))
    many = f"{len(blocks)} target block{'s' * (len(blocks) > 1)} of {sum(blocks) / len(blocks) / grid.size:.0%}"
    return f"{name} on {sizes} tokens: context {sum(context) / len(context):.0%}, {many}"


def _views(config: Mapping[str, Any], out: Path) -> Path:
    """One file for each branch. Returns the last one, and prints the others."""
    found = [
        views({**each, "data": _data(each)}, out.with_stem(f"{out.stem}-{name}") if number else out)
        for number, (name, each) in enumerate(branches(config).items())
    ]
    print("".join(f"{path}\n" for path in found[:-1]), end="")
    return found[-1]


def _curves(config: Mapping[str, Any], out: Path) -> Path:
    if not config.get("run"):
        raise ConfigError("show curves needs a run: run=runs/...")
    return curves(Path(config["run"]) / "log.jsonl", out, next(iter(branches(config).values())))


def _folder(config: Mapping[str, Any]) -> Path:
    return Path(config["run"]) / "pictures" if config.get("run") else Path()


def _data(config: Mapping[str, Any]) -> dict[str, Any]:
    """The run's data, or, where that is not set yet, built-in pictures or clips of its size (and it says so)."""
    data = dict(config["data"])
    if "???" not in data.values():
        return data
    frames = max(view_shape(data)[1], *(1 + (view.get("frame") or 0) for view in config["views"].values()), 1)
    print(f"the data is not set: these are built-in {'clips' if frames > 1 else 'pictures'}", file=sys.stderr)
    common = {field.name for field in dataclasses.fields(DataOptions)}
    own = {"name": "world", "side": data["size"], "frames": frames}
    return {key: value for key, value in data.items() if key in common} | own


def _several(view: int | tuple[int, ...]) -> tuple[int, ...]:
    return (view,) if isinstance(view, int) else view


def _flow(config: Mapping[str, Any], out: Path) -> Path:
    """Of a run that infers motion, on pairs that it was not trained on where there are any."""
    from jepakit.evaluate.data import tested
    from jepakit.evaluate.motion import Looking, load

    if not config.get("run"):
        raise ConfigError("show flow needs a run: run=runs/...")
    trained = load(Path(config["run"]), config, Looking()).trained
    return flow(pairs(trained, tested(trained.config, {}, None)), out)


DRAW = {"masks": _masks, "views": _views, "curves": _curves, "flow": _flow}
