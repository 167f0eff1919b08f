"""Predicted features beside the true ones, as the same colours."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from jepakit.pictures.asked import Answered, Asked
from jepakit.pictures.features import Basis
from jepakit.pictures.mosaic import Cell, Row, framed, mosaic
from jepakit.pictures.panels import cells, first_frame, frame, slices, spread_out, veil
from jepakit.pictures.style import colour

ROWS = {False: 6, True: 2}
"""Pictures on a sheet, and clips."""

HEADS = ("picture", "true features", "predicted")
CAPTION = (
    "colours: the first three principal components of the true tokens; framed: what was hidden and asked for",
    "a predictor that has learned has the colours of the true features inside the frames, edges included",
)


def imagined(found: Answered, out: Path) -> Path:
    """Draw pictures, the colours of their true target tokens, and in them those of the predicted ones.

    The colours are the first three principal components of the true tokens of all pictures, and compare across columns.
    Two pictures stand side by side; of clips each row is a time slice.
    """
    basis, moves = Basis.of(found.bank.flatten(0, 1)), found.pictures.shape[2] > 1
    pieces, count = slices(found.grid), min(ROWS[moves], len(found.pictures))
    strips = [[_cells(found, number, piece, basis) for piece in pieces] for number in range(count)]
    abreast = 2 if count > 1 else 1
    blank: list[Cell | None] = [None] * len(HEADS)
    rows = []
    for number in range(0, count, abreast):
        pair = [strips[i] if i < count else [blank] * len(pieces) for i in range(number, number + abreast)]
        rows += [Row([cell for strip in pair for cell in strip[piece]]) for piece in range(len(pieces))]
        rows[-1] = rows[-1]._replace(below=0.06 * moves)
    return mosaic(rows, HEADS * abreast, out, CAPTION, {len(HEADS): 0.15})


def _cells(found: Answered, number: int, piece: int, basis: Basis) -> list[Cell | None]:
    asked = next(each for each in reversed(found.asked) if each.start <= number)
    grid, picture = found.grid, found.pictures[number]
    image = frame(picture, first_frame(piece, picture.shape[1], grid))
    meant = cells(asked.target[number - asked.start], grid)[piece]
    true, guess = (_painted(basis, each, found, piece) for each in (found.bank[number], _filled(found, asked, number)))
    guess = veil(guess, ~spread_out(meant, guess))
    ink = colour(7)
    return [Cell(framed(each, meant, ink)) for each in (image, true, guess)]


def _filled(found: Answered, asked: Asked, number: int) -> Float[Tensor, "N D"]:
    """The true tokens of a picture, in the place of those that were asked for the guess."""
    at = number - asked.start
    return found.bank[number].index_copy(0, asked.target[at].flatten(), asked.guess[at].flatten(0, 1))


def _painted(basis: Basis, tokens: Float[Tensor, "N D"], found: Answered, piece: int) -> np.ndarray:
    return basis(tokens).reshape(*found.grid, 3)[piece]
