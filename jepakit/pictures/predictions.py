"""What the predictor says of hidden patches, as pictures: the nearest patches of other pictures, and a small decoder's.

``jepakit show predictions run=FOLDER``
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jepakit.data import open_source
from jepakit.data.views import alone
from jepakit.device import pick_device
from jepakit.errors import ConfigError, nearest
from jepakit.evaluate.data import held_out
from jepakit.jepa import figures_of
from jepakit.pictures.asked import Answered, Asked, Oracle, answered, oracle, true_tokens
from jepakit.pictures.decoder import Decoder, fitted, joined, patches
from jepakit.pictures.entry import picked
from jepakit.pictures.judged import Figures, figures, likest, said
from jepakit.pictures.mosaic import Cell, Row, framed, mosaic
from jepakit.pictures.panels import cells, first_frame, frame, spread_out, veil
from jepakit.pictures.style import colour
from jepakit.types import Grid

SHOWN = {False: 6, True: 2}
"""Pictures on a sheet, and clips."""

TARGET = colour(4)
"""Colour of the border around what is asked for."""

HEADS = (
    "picture, and\nwhat is seen of it",
    "truth",
    "prediction",
    "from half of\nthe context",
    "from the other\nhalf",
    "mean token of\nthat place",
)
"""Whose tokens are shown in a column."""


LEGEND = (
    "framed: what was hidden and asked for; grey: what the predictor was not shown either; cosine: with true tokens",
    "each token is shown as the patch of another picture whose true token is likest, and as a small decoder draws it; "
    "it has one answer for each token, so that predictions differ where the predictor was shown something else",
)


class Seen(NamedTuple):
    """All that a sheet and its numbers need; ``own`` says that the pictures are those that it was trained on."""

    answered: Answered
    figures: Figures
    decoder: Decoder
    explained: dict[str, float]
    own: bool

    @property
    def numbers(self) -> dict[str, Any]:
        """All that was measured, as plain data."""
        return self.figures._asdict() | {"chance": self.figures.chance, "explained": self.explained, "own": self.own}


def command(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """``jepakit show predictions run=FOLDER [out=FILE.png] [samples=N]``: print the numbers and the picture's path."""
    from jepakit import runs
    from jepakit.catalog import collect
    from jepakit.checkpoint import load_newest_model
    from jepakit.config import assignments

    given = assignments(argv)
    for key in given:
        if key not in ("run", "out", "samples"):
            known = nearest(key, ("run", "out", "samples"))
            raise ConfigError(f"show predictions knows no {key!r}{known}; it takes: run=, out=, samples=")
    if "run" not in given:
        raise ConfigError("show predictions needs a run: run=runs/...")
    collect(files)
    folder, count = Path(str(given["run"])), given.get("samples")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ConfigError(f"samples={count}: a whole number from 1 on")
    config: dict[str, Any] = runs.open_run(folder).config | {"run": str(folder)}
    device = pick_device(config["trainer"]["device"], config["trainer"]["threads"])
    model, _ = load_newest_model(folder, config)
    try:
        who = oracle(config, figures_of(model), device)
    except ConfigError as error:
        hint = f"what the encoder learned is shown by: jepakit report run={folder}"
        raise ConfigError(f"show predictions: {error}; {hint}") from error
    found = looked(who, count)
    out = sheet_of(found, Path(str(given.get("out") or folder / "pictures" / "predictions.png")), count)
    print("\n".join(told(found)))
    print(out)
    return 0


def looked(who: Oracle, count: int | None = None) -> Seen:
    """Ask about pictures that the run was not trained on, where it has any, and train the decoder on those it was."""
    source = open_source(who.config["data"])
    unseen = held_out(source)
    room, size, frames = max(who.room(), count or 0), who.config["data"]["size"], 1 if alone(who.config) else None
    trained = picked(source, size, room if unseen else 2 * room)[:, :, :frames]
    if unseen:
        shown = picked(unseen, size, room)[:, :, :frames]
    else:  # halves of one source, which share no picture where there are two
        middle = len(trained) // 2
        shown, trained = trained[: max(middle, 1)], trained[middle:]
    found = answered(who, shown, _count(shown, count))
    pixels = patches(trained, who.grid)
    decoder = fitted(true_tokens(who, trained).flatten(0, 1), pixels.flatten(0, 1))
    return Seen(found, figures(found), decoder, _explained(found, decoder), unseen is None)


def _explained(found: Answered, decoder: Decoder) -> dict[str, float]:
    """How much of the hidden pixels the decoder explains, from what each says of them."""
    true = patches(found.pictures, found.grid)
    tokens: dict[str, list[Tensor]] = {}
    wanted = []
    for asked in found.asked:
        pixels = true[asked.start : asked.start + len(asked.target)]
        index = asked.target.flatten(1)
        wanted.append(pixels.gather(1, index[..., None].expand(-1, -1, pixels.shape[-1])).flatten(0, 1))
        for name, each in {"truth": asked.truth, **said(found, asked)}.items():
            tokens.setdefault(name, []).append(each.flatten(0, 2))
    patch = torch.cat(wanted)
    return {name: decoder.explained(torch.cat(each), patch) for name, each in tokens.items()}


def told(found: Seen) -> list[str]:
    """The numbers in words."""
    f, e = found.figures, found.explained
    share = {name: each["top1"] for name, each in f.found.items()} | {"chance": f.chance["top1"]}
    five = {name: each["top5"] for name, each in f.found.items()} | {"chance": f.chance["top5"]}
    kind = "clips" if found.answered.pictures.shape[2] > 1 else "pictures"
    whose = f"{kind} that it was trained on, since it has no others" if found.own else f"held-out {kind}"
    return [
        f"{f.tokens:,} hidden tokens of {f.pictures} {whose}",
        "cosine with the true token: prediction {prediction:.3f}; mean token of its place in other pictures "
        "{place:.3f}; nearest token of the context {copy:.3f}; mean token {mean:.3f}".format(**f.cosine),
        f"true token likest of {f.among:,}: prediction {share['prediction']:.2%}, mean of its place "
        f"{share['place']:.2%}, chance {share['chance']:.3%}; among the five likest: {five['prediction']:.2%}, "
        f"{five['place']:.2%}, {five['chance']:.3%}",
        "variance of the hidden pixels that the decoder explains: from the true tokens {truth:.0%}, from predictions "
        "{prediction:.0%}, from the mean of their place {place:.0%}".format(**e),
    ]


def sheet_of(found: Seen, out: Path, count: int | None = None) -> Path:
    """Draw the sheet, and write its numbers beside it as JSON. Returns the picture's path."""
    rows, count = [], _count(found.answered.pictures, count)
    for number in range(min(count, len(found.answered.pictures))):
        rows += _rows(found, number)
    caption = [line for each in (*LEGEND, *told(found)) for line in _wrapped(each)]
    mosaic(rows, HEADS, out, caption, apart={1: 0.12, 5: 0.12})
    out.with_suffix(".json").write_text(json.dumps(found.numbers, indent=1))
    return out


def _count(pictures: Tensor, count: int | None) -> int:
    return count or SHOWN[pictures.shape[2] > 1]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 132, subsequent_indent="    ")


def _rows(found: Seen, number: int) -> list[Row]:
    """Of one picture a row of nearest patches and one of decoded ones, for every time slice that is shown."""
    grid, shape = found.answered.grid, tuple(found.answered.pictures.shape[1:])
    pieces = sorted({0, grid.t - 1})
    asked = next(each for each in reversed(found.answered.asked) if each.start <= number)
    at = number - asked.start
    voices = _voices(found, asked, at)
    clips = [
        [(seen, joined(patch, grid, shape)) for seen, patch in each]
        for each in (_nearest_patches(found, asked, at, voices), _decoded(found, asked, at, voices))
    ]
    rows = []
    for piece in pieces:
        which = f", frame {first_frame(piece, shape[1], grid) + 1}" * (shape[1] > 1)
        for line, words in enumerate(("nearest patches", "decoder")):
            cells = [_first(found, asked, at, piece, line)]
            for cosine, (seen, clip) in zip(_cosines(asked, at, voices), clips[line], strict=True):
                image = _pasted(clip, seen, asked.target[at], piece, grid)
                said_below = line == 1 and piece == pieces[-1]
                cells.append(Cell(image, cosine if said_below else ""))
            rows.append(Row(cells, words + which))
    return [*rows[:-1], rows[-1]._replace(below=0.08)]


def _voices(found: Seen, asked: Asked, at: int) -> list[tuple[Tensor, Tensor]]:
    """Of one picture, for every column, the context that was seen and the tokens at the target, ``M Q D``."""
    context, says = asked.context[at], said(found.answered, asked)
    halves = [(seen[at], guess[at]) for seen, guess in asked.halves] or [(context, asked.guess[at])] * 2
    return [(context, asked.truth[at]), (context, asked.guess[at]), *halves, (context, says["place"][at])]


def _cosines(asked: Asked, at: int, voices: Sequence[tuple[Tensor, Tensor]]) -> list[str]:
    """Below each column how near its tokens are to the true ones."""
    near = [torch.cosine_similarity(tokens, asked.truth[at], dim=-1).mean().item() for _, tokens in voices]
    return ["", *(f"cosine {value:.2f}" for value in near[1:])]


def _nearest_patches(
    found: Seen, asked: Asked, at: int, voices: Sequence[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    bank = found.answered.bank
    pixels = patches(found.answered.pictures, found.answered.grid)
    own = pixels[asked.start + at]
    result = []
    for seen, tokens in voices:
        flat = tokens.flatten(0, 1)
        picture, place = likest(flat, bank, torch.full((len(flat),), asked.start + at))
        result.append((seen, own.index_copy(0, asked.target[at].flatten(), pixels[picture, place])))
    return result


def _decoded(
    found: Seen, asked: Asked, at: int, voices: Sequence[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    own = patches(found.answered.pictures[asked.start + at][None], found.answered.grid)[0]
    target = asked.target[at].flatten()
    return [
        (seen, own.index_copy(0, target, found.decoder(tokens.flatten(0, 1)).clamp(0, 1))) for seen, tokens in voices
    ]


def _first(found: Seen, asked: Asked, at: int, piece: int, line: int) -> Cell:
    """The picture with what is asked for framed; below it what is seen."""
    grid, picture = found.answered.grid, found.answered.pictures[asked.start + at]
    image = frame(picture, first_frame(piece, picture.shape[1], grid))
    if line:
        image = veil(image, ~spread_out(cells(asked.context[at], grid)[piece], image))
    return Cell(framed(image, cells(asked.target[at], grid)[piece], TARGET))


def _pasted(clip: Float[Tensor, "C T H W"], seen: Tensor, target: Tensor, piece: int, grid: Grid) -> np.ndarray:
    """A frame of what is said, framed, within what was seen; the rest is grey."""
    image = frame((clip * 255).round().to(torch.uint8), first_frame(piece, clip.shape[1], grid))
    meant = cells(target, grid)[piece]
    image = veil(image, ~spread_out(meant | cells(seen, grid)[piece], image))
    return framed(image, meant, TARGET)
