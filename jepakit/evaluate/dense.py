"""What the dense probes ``segment`` and ``depth`` share: samples with tokens and maps, linear heads.

A probe is one linear layer on each token, whose answers are brought to the size of the map by bilinear interpolation,
as in DINOv2 (arXiv 2304.07193, section 7.4). Pictures are looked at as in every evaluation, once and centred, and maps
are cut alike: scores are of the view's pixels.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from jepakit.errors import DataError

Levels = Literal["all", "finest", "last"]
"""What is read of a pyramid: all levels at the places of the finest, one after the other in a token; or one alone."""
ROOM = 1 << 26
"""Most numbers of answers that are held at once while a probe learns or is asked."""
CHUNK = 16
"""Samples whose tokens are looked at together."""
LEAST = 1e-9
"""Variance of a number over its squared mean, below which it is rounding."""
SHOWN = 6
"""Test samples whose answers are kept for a picture."""


class Dense(NamedTuple):
    """Tokens (float16) on a ``grid`` of rows and columns, and maps, of n samples, in the order of ``index``; and a line
    for each sample that could not be read. Maps are of classes, below 0 where unknown, or of floats, nan where unknown;
    of clips they are those of one ``frame``.
    """

    tokens: Float[Tensor, "n N D"]
    grid: tuple[int, int]
    maps: Shaped[Tensor, "n S S"]
    index: Int[Tensor, "n"]
    skipped: tuple[str, ...] = ()
    frame: int = 0

    def part(self, rows: Int[Tensor, "m"]) -> "Dense":
        """Some of the samples."""
        return self._replace(tokens=self.tokens[rows], maps=self.maps[rows], index=self.index[rows])


class Head(NamedTuple):
    """A linear layer from tokens to K answers, each brought to the size of a map."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, "K"]

    def __call__(self, tokens: Float[Tensor, "B N D"], grid: tuple[int, int], side: int) -> Float[Tensor, "B S S K"]:
        return spread(F.linear(tokens.to(self.weight.dtype), self.weight, self.bias), grid, side)

    def answers(self, part: Dense, device: torch.device | str) -> Iterator[Float[Tensor, "B S S K"]]:
        """Those for all samples, a few at a time, on the device."""
        head, side = Head(*(each.to(device) for each in self)), part.maps.shape[-1]
        with torch.no_grad():
            for tokens in part.tokens.split(at_once(len(self.bias), side)):
                yield head(tokens.to(device), part.grid, side)


def kept(answers: Iterable[Tensor], keep: list[Tensor] | None) -> Iterator[Tensor]:
    """The same answers, those for the first ``SHOWN`` samples put into ``keep`` on the way."""
    for each in answers:
        if keep is not None and (room := SHOWN - sum(map(len, keep))) > 0:
            keep.append(each[:room].clone())
        yield each


def stretch(count: int, side: int, like: Tensor) -> Float[Tensor, "S n"]:
    """The matrix of linear interpolation from ``count`` numbers to ``side``, their outer edges in the same place."""
    unit = torch.eye(count, dtype=like.dtype, device=like.device)
    return F.interpolate(unit[None], side, mode="linear", align_corners=False)[0].T.contiguous()


def spread(values: Float[Tensor, "B N K"], grid: tuple[int, int], side: int) -> Float[Tensor, "B S S K"]:
    """Bilinear interpolation, as ``F.interpolate`` does it, by matrices: on GPUs its gradient is then deterministic."""
    rows, columns = (stretch(count, side, values) for count in grid)
    return torch.einsum("xw,bywk->byxk", columns, torch.einsum("yh,bhwk->bywk", rows, values.unflatten(1, grid)))


def at_once(answers: int, side: int) -> int:
    """Samples that there is room for at once."""
    return max(ROOM // (answers * side * side), 1)


def moments(tokens: Float[Tensor, "n N D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """Mean and covariance of all tokens, float64. Raises DataError for tokens that are not finite."""
    total, square = (torch.zeros(*tokens.shape[2:] * axes, dtype=torch.float64) for axes in (1, 2))
    for several in tokens.split(CHUNK):
        each = several.double().flatten(0, 1)
        total, square = total + each.sum(0), square + each.T @ each
    if not total.isfinite().all():
        raise DataError("tokens of the fit samples are not finite: no score")
    count = tokens.shape[0] * tokens.shape[1]
    return total / count, square / count - torch.outer(total / count, total / count)


def deviations(mean: Float[Tensor, "D"], covariance: Float[Tensor, "D D"]) -> Float[Tensor, "D"]:
    """Of each number of a token, 1 where it never changes: what a batch norm without scale and shift comes to on
    features that do not change."""
    variance = covariance.diagonal()
    return torch.where(variance > LEAST * mean.square(), variance, 1.0).sqrt()


def check(fit: Dense, test: Dense) -> None:
    """Raise DataError for tokens that no probe can read, and where nothing is known of a part."""
    for name, part in (("fit", fit), ("test", test)):
        finite = torch.cat([each.isfinite().flatten(1).all(1) for each in part.tokens.split(CHUNK)])
        if bad := int((~finite).sum()):
            raise DataError(f"the tokens of {bad} of {len(part.tokens)} {name} samples are not finite: no score")
        if not known(part.maps).any():
            raise DataError(f"the maps of the {len(part.maps)} {name} samples are known nowhere: no score")


def known(maps: Shaped[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
    """Where a map says something."""
    return ~maps.isnan() if maps.is_floating_point() else maps >= 0
