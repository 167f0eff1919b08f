"""How far each pixel is, told by one linear layer on frozen patch tokens, in closed form.

The answers of the layer are brought to the size of the map, which is linear too: what minimises the squared error of
all known pixels, with a penalty on the weights, is a ridge regression on interpolated tokens, and is solved exactly,
mostly without interpolating a token. Strengths of the penalty are chosen on a held-out part of the fit samples.

It is the plain one of the linear probes for depth. DINOv2's (arXiv 2304.07193, section 7.4) sorts depth into 256 bins,
minimises a scale-invariant loss by AdamW, and reads the class token too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jepakit.evaluate.bootstrap import interval
from jepakit.evaluate.dense import (
    CHUNK,
    Dense,
    Head,
    Levels,
    check,
    deviations,
    kept,
    known,
    moments,
    spread,
    stretch,
)
from jepakit.evaluate.features import split
from jepakit.evaluate.frozen import refuse_share
from jepakit.evaluate.protocol import positive

Device = torch.device | str
DELTA = 1.25
"""A depth is told well where it is within this factor of the true one (Eigen et al. 2014)."""
MANY = 2048
"""Tokens of a sample, beyond which they are interpolated after all."""
SUMS = ("squares", "relative", "well", "pixels")
"""What is added up over the known pixels of a sample."""


@dataclass(frozen=True)
class Depth:
    """``alphas`` are strengths per pixel: scikit-learn's alpha is that times the known pixels."""

    levels: Levels
    alphas: tuple[float, ...]
    held_out: float
    FACTS: ClassVar[dict[str, Any]] = {
        "map": "depth",
        "measure": "RMSE",
        "better": "lower",
        "regression": "ridge, on depth itself",
        "normalisation": "standardised",
        "upsampling": "bilinear, of depth",
        "clamped": "to the depths of the fit samples",
        "tokens": "float16",
        "mean": "over the known pixels of all samples",
        "interval": "bootstrap over test samples",
    }

    def __post_init__(self) -> None:
        positive(self, "alphas")
        refuse_share(self.held_out)


class Normal(NamedTuple):
    """The sums that a regression is solved from, over n known pixels: of f f^T, f y, f, y^2, y and 1, where f is what
    the tokens say at a pixel, standardised and interpolated, and y its depth. Float64."""

    square: Float[Tensor, "D D"]
    cross: Float[Tensor, "D"]
    total: Float[Tensor, "D"]
    depth_square: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    pixels: Float[Tensor, ""]

    def plus(self, other: "Normal") -> "Normal":
        """Of both together."""
        return Normal(*(a + b for a, b in zip(self, other, strict=True)))

    def ridge(self, alphas: tuple[float, ...]) -> list[tuple[Float[Tensor, "D"], Float[Tensor, ""]]]:
        """Weights and bias for each strength, the bias free."""
        mean, y = self.total / self.pixels, self.depth / self.pixels
        covariance = self.square / self.pixels - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        towards = vectors.T @ (self.cross / self.pixels - mean * y)
        found = [vectors @ (towards / (values.clamp(min=0) + alpha)) for alpha in alphas]
        return [(weight, y - mean @ weight) for weight in found]

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Root mean squared error of a regression here, not clamped."""
        squares = self.depth_square - 2 * weight @ self.cross - 2 * bias * self.depth
        squares = squares + weight @ self.square @ weight + 2 * bias * (weight @ self.total) + bias**2 * self.pixels
        return float((squares.clamp(min=0) / self.pixels).sqrt())


def depth(
    fit: Dense, test: Dense, classes: Any, settings: Depth, device: Device = "cpu", keep: list[Tensor] | None = None
) -> dict[str, Any]:
    """A cell of a table: the root mean squared error of a linear probe, in the units of the data.

    ``classes`` are those of other kinds of maps. Its answers for the first test samples are put into ``keep``. Raises
    DataError for tokens that are not finite, and where nothing is known of a part.
    """
    check(fit, test)
    head, about = learn(fit, settings, device)
    return judged(kept(told(head, fit, test, device), keep), fit, test) | about


def constant(
    fit: Dense,
    test: Dense,
    classes: Any = None,
    settings: Any = None,
    device: Device = "cpu",
    keep: list[Tensor] | None = None,
) -> dict[str, Any]:
    """The control: at each place the mean depth of the fit samples, whatever the picture."""
    where = known(fit.maps)
    mean = fit.maps[where].double().mean()
    count = where.sum(0)
    place = torch.where(count > 0, fit.maps.nan_to_num(0).double().sum(0) / count.clamp(min=1), mean)
    return judged(kept((place.expand(len(each), -1, -1) for each in test.maps.split(CHUNK)), keep), fit, test)


def learn(fit: Dense, settings: Depth, device: Device = "cpu") -> tuple[Head, dict[str, Any]]:
    """The probe of the best strength, fitted on all samples, and how it was chosen."""
    mean, covariance = moments(fit.tokens)
    deviation = deviations(mean, covariance)
    part, held = (fit.part(rows) for rows in split(len(fit.maps), 1 - settings.held_out))
    tried, best = {}, sorted(settings.alphas)[len(settings.alphas) // 2]
    sums = [normal(each, mean, deviation, device) for each in (part, held)]
    if len(settings.alphas) > 1 and min(each.pixels for each in sums):
        solved = zip(settings.alphas, sums[0].ridge(settings.alphas), strict=True)
        tried = {alpha: sums[1].error(*found) for alpha, found in solved}
        best = min(tried, key=lambda alpha: tried[alpha])
    weight, bias = (each.cpu() for each in sums[0].plus(sums[1]).ridge((best,))[0])
    head = Head((weight / deviation)[None], (bias - weight @ (mean / deviation))[None])
    return head, {"alpha": best, "tried": tried}


def told(head: Head, fit: Dense, part: Dense, device: Device = "cpu") -> Iterator[Float[Tensor, "B S S"]]:
    """The depths that a probe tells, a few samples at a time, none beyond those that the fit samples show."""
    low, high = (float(end) for end in fit.maps[known(fit.maps)].aminmax())
    return (answer[..., 0].clamp(low, high).cpu() for answer in head.answers(part, device))


def normal(part: Dense, mean: Tensor, deviation: Tensor, device: Device) -> Normal:
    """The sums over some samples."""
    like = torch.zeros((), dtype=torch.float64, device=device)
    rows, columns = (stretch(count, part.maps.shape[-1], like) for count in part.grid)
    mean, deviation, width = mean.to(device), deviation.to(device), part.tokens.shape[2]
    sums = Normal(like.new_zeros(width, width), like.new_zeros(width), like.new_zeros(width), like, like, like)
    for tokens, found in zip(part.tokens, part.maps, strict=True):
        x, y = (tokens.to(device).double() - mean) / deviation, found.to(device).double()
        where = known(y).double()
        y = y.nan_to_num(0)
        seen, depths = ((rows.T @ each @ columns).flatten() for each in (where, y))
        square = _square(x, where, rows, columns)
        sums = sums.plus(Normal(square, x.T @ depths, x.T @ seen, y.square().sum(), y.sum(), where.sum()))
    return sums


def _square(x: Tensor, where: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "D D"]:
    """The sum of ``f f^T`` over the known pixels of a sample.

    A pixel's f is ``X^T u``, where u holds the weights of the tokens around it, so that the sum is ``X^T G X`` with G
    that of ``u u^T``, tokens by tokens: rows and columns of u are apart, and so are those of G. Of a great many tokens
    G is larger than all the pixels are.
    """
    if len(x) > MANY:
        fine = spread(x[None], (rows.shape[1], columns.shape[1]), len(rows))[0][where > 0]
        return fine.T @ fine
    pairs = [torch.einsum("sa,sb->sab", each, each).flatten(1) for each in (rows, columns)]
    gram = (pairs[0].T @ where @ pairs[1]).unflatten(0, (rows.shape[1],) * 2).unflatten(2, (columns.shape[1],) * 2)
    return x.T @ (gram.permute(0, 2, 1, 3).reshape(len(x), len(x)) @ x)


def judged(answers: Iterable[Tensor], fit: Dense, test: Dense) -> dict[str, Any]:
    """Scores of what was told of the test samples; each known pixel counts alike, not each sample."""
    rows, row = [], 0
    for guess in answers:
        truth = test.maps[row : row + len(guess)].double()
        rows.append(torch.stack([_measured(*each) for each in zip(guess.double(), truth, strict=True)]))
        row += len(guess)
    sums = torch.cat(rows)
    squares, relative, well, pixels = sums.sum(0).tolist()
    return {
        "score": (squares / pixels) ** 0.5,
        **interval(sums, lambda each: (each[:, 0] / each[:, 3]).sqrt()),
        "abs_rel": relative / pixels,
        "delta": well / pixels,
        "pixels": int(pixels),
        "fit": len(fit.maps),
        "test": len(test.maps),
    }


def _measured(guess: Float[Tensor, "S S"], truth: Float[Tensor, "S S"]) -> Float[Tensor, "4"]:
    """``SUMS`` of one sample."""
    guess, truth = guess[known(truth)], truth[known(truth)]
    well = (guess > 0) & (torch.maximum(guess / truth, truth / guess) < DELTA)
    count = torch.tensor(len(truth), dtype=truth.dtype)
    return torch.stack(
        [(guess - truth).square().sum(), ((guess - truth).abs() / truth).sum(), well.double().sum(), count]
    )
