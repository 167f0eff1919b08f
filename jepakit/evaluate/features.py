"""Frozen features of a source: what every score is computed from.

Nothing here leaves a trace: random state, gradients and the modes of the modules are what they were before.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.data import read_options
from jepakit.data.loader import evaluation_batches
from jepakit.data.views import View
from jepakit.device import autocast
from jepakit.errors import DataError, nearest
from jepakit.protocols import Source
from jepakit.seeds import generator
from jepakit.types import Features

WORKERS_PAY = 512
"""Samples below which starting worker processes takes longer than decoding."""

Change = Callable[[Tensor], Tensor]
"""What a control makes of clips ``B C T H W`` before it reads them."""


class Extracted(NamedTuple):
    """Features of n samples, in the order of ``index``, and what could not be read (a line for each sample).

    ``x`` is one vector for each sample, or all its tokens, ``n N D``, or those of each of P ways to look at it,
    ``n P N D``. A vector may be those of several layers one after the other, the last one last, of these ``widths``.
    """

    x: Float[Tensor, "n *D"]
    y: Int[Tensor, "n"]
    index: Int[Tensor, "n"]
    skipped: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()

    def part(self, rows: Int[Tensor, "m"]) -> "Extracted":
        """Some of the samples."""
        return self._replace(x=self.x[rows], y=self.y[rows], index=self.index[rows])

    def seen(self, layer: str) -> "Extracted":
        """Of vectors those of the ``last`` layer alone, or all that there are (``last4``)."""
        if layer != "last" or len(self.widths) < 2:
            return self
        return self._replace(x=self.x[:, -self.widths[-1] :], widths=self.widths[-1:])


class Reading(NamedTuple):
    """How samples are read: ``data`` is ``config["data"]`` (size, mean, std, batch_size, workers), ``precision`` is
    fp32 or bf16 (autocast), ``label`` the label to bring along; with None nothing is asked of the labels, ``y`` is -1.
    ``memory`` bounds what the features of one reading may take, in GiB.

    A sample is looked at by each of ``views`` (None: one, centred), and so is each of its ``clips``, evenly spread over
    its length. Vectors are averaged. Tokens of the clips follow one another where ``across``, else each clip stays a
    way to look at the sample by itself, as each view does. An encoder that has only seen single frames sees those of a
    clip one by one, ``alone``.
    """

    data: Mapping[str, Any]
    device: torch.device | str = "cpu"
    precision: str = "fp32"
    label: str | None = "class"
    memory: float = math.inf
    views: tuple[View, ...] | None = None
    clips: int = 1
    across: bool = True
    alone: bool = False

    @property
    def looks(self) -> int:
        """Views of all clips of one sample."""
        return self.clips * len(self.views or (None,))

    @property
    def batch_size(self) -> int:
        """Samples that are read at a time: together they have about as many views as a batch has samples."""
        return max(read_options(self.data).batch_size // self.looks, 1)


def extract(backbone: nn.Module, source: Source, reading: Reading, rows: Int[Tensor, "n"] | None = None) -> Extracted:
    """The mean over the patch tokens of the last layer, float32, of the samples ``rows`` (None: of all), in order.

    A sample that cannot be read is left out and reported. Raises DataError where none can be, or for a label that the
    source does not have.
    """

    def encode(pixels: Tensor) -> Tensor:
        with autocast(pixels.device, reading.precision):
            return pool(represented(backbone, pixels, reading.alone))

    with undisturbed(backbone):
        return collect(encode, source, reading, rows)


def tokens(backbone: nn.Module, source: Source, reading: Reading, rows: Int[Tensor, "n"] | None = None) -> Extracted:
    """As ``extract``, but all patch tokens of the last layer, ``n N D``, and in float16: there are many of them.

    Values that float16 cannot hold are infinite, which every protocol refuses.
    """

    def encode(pixels: Tensor) -> Tensor:
        with autocast(pixels.device, reading.precision):
            return levels_of(represented(backbone, pixels, reading.alone))[-1].half()

    with undisturbed(backbone):
        return collect(encode, source, reading, rows)


def raw_pixels(
    source: Source,
    reading: Reading,
    rows: Int[Tensor, "n"] | None = None,
    side: int = 16,
    change: Change | None = None,
) -> Extracted:
    """The control: pictures of ``side`` pixels, values 0 to 1, as features; of a clip its first and its last frame.

    With ``change``, of what that makes of a clip.
    """
    mean, std = (torch.tensor(list(reading.data[name])).view(-1, 1, 1, 1) for name in ("mean", "std"))

    def flatten(pixels: Tensor) -> Tensor:
        bare = pixels.cpu() * std + mean
        bare = bare if change is None else change(bare)
        bare = bare[:, :, sorted({0, bare.shape[2] - 1})]
        return nn.functional.interpolate(bare, size=(bare.shape[2], side, side), mode="area").flatten(1)

    return collect(flatten, source, reading, rows)


def moving(source: Source, reading: Reading, rows: Int[Tensor, "n"]) -> bool:
    """Whether the samples are clips of more than one frame, as far as the first tells."""
    data = Reading(dict(reading.data) | {"workers": 0})
    with contextlib.closing(_batches(source, data, rows[:1])) as batches:
        return next(batches).views[0].shape[2] > 1


def represented(backbone: nn.Module, pixels: Float[Tensor, "B C T H W"], alone: bool = False) -> Features:
    """Features; those before an expander, where the backbone tells them apart. Of frames that are encoded each
    ``alone`` the tokens follow one another."""
    encode = getattr(backbone, "represent", backbone)
    if not alone or pixels.shape[2] == 1:
        return encode(pixels)
    found = encode(pixels.transpose(1, 2).flatten(0, 1).unsqueeze(2))
    levels = tuple(each.unflatten(0, (len(pixels), -1)).flatten(1, 2) for each in levels_of(found))
    return levels if len(levels) > 1 else levels[0]


def levels_of(features: Features) -> tuple[Tensor, ...]:
    """Those of a pyramid; other features are its only one."""
    return features if isinstance(features, tuple) else (features,)


def pool(features: Features) -> Float[Tensor, "B D"]:
    """One vector a sample: the mean over the tokens of the last level, in float32."""
    return levels_of(features)[-1].float().mean(1)


def samples(count: int, limit: int | None = None) -> Int[Tensor, "n"]:
    """The numbers of at most ``limit`` samples, ascending, drawn from a fixed permutation."""
    return torch.randperm(count, generator=generator("evaluate", "samples"))[:limit].sort().values


def split(count: int, share: float = 0.8) -> tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
    """A fixed division of the numbers below ``count``, at least two, into two disjoint parts, neither of them empty."""
    if count < 2:
        raise DataError(f"{count} samples cannot be divided into fit and test samples")
    order = torch.randperm(count, generator=generator("evaluate", "split"))
    cut = min(max(round(count * share), 1), count - 1)
    return order[:cut].sort().values, order[cut:].sort().values


def check_label(source: Source, label: str) -> tuple[str, ...]:
    """The names of a label's values. Raises DataError where the source does not have the label."""
    if label in source.classes:
        return source.classes[label]
    place = source.describe(0) if len(source) else "empty"
    if not source.classes:
        how = "protocol=flow scores motion" if hasattr(source, "truth") else "a score needs a sub-folder for each class"
        raise DataError(f"the data is unlabelled (first sample: {place}): {how}")
    known = ", ".join(source.classes)
    raise DataError(f"no label {label!r}{nearest(label, source.classes)} in the data; labels: {known}")


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; random state and every module's mode are put back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            module.eval()
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def collect(compute: Callable[[Tensor], Tensor], source: Source, reading: Reading, rows: Tensor | None) -> Extracted:
    """Compute features batch by batch. The loader replaces what cannot be read; a score must not count it twice."""
    if reading.label is not None:
        check_label(source, reading.label)
    asked = torch.arange(len(source)) if rows is None else rows
    x, y, index, skipped = torch.empty(0), [], [], []
    for wanted, batch in zip(asked.split(reading.batch_size), _batches(source, reading, asked), strict=True):
        good = batch.index == wanted
        skipped += [f"{bad['path']}: {bad['reason']}" for bad in batch.replaced if bad["index"] in wanted[~good]]
        if good.any():
            found = _joined(compute(torch.cat([view[good.to(view.device)] for view in batch.views])).cpu(), reading)
            x = x if index else _room(found, len(asked), reading.memory)
            x[sum(map(len, index)) :][: len(found)] = found
            y.append(batch.labels[reading.label].cpu()[good] if reading.label else torch.full_like(wanted[good], -1))
            index.append(wanted[good])
    if not index:
        raise DataError(f"none of {len(asked)} samples can be read" + (f"; first: {skipped[0]}" if skipped else ""))
    return Extracted(x[: sum(map(len, index))], torch.cat(y).long(), torch.cat(index), tuple(dict.fromkeys(skipped)))


def _joined(found: Tensor, reading: Reading) -> Tensor:
    """What the looks at each sample come to: vectors ``L*B D`` or tokens ``L*B N D``, clip by clip, view by view."""
    if reading.looks == 1:
        return found
    if found.ndim == 2:
        return found.unflatten(0, (reading.looks, -1)).mean(0)
    tokens = found.unflatten(0, (reading.clips, reading.looks // reading.clips, -1)).permute(2, 1, 0, 3, 4)  # B V C N D
    tokens = tokens.flatten(2, 3) if reading.across else tokens.flatten(1, 2)
    return tokens.squeeze(1)


def _room(like: Tensor, count: int, memory: float) -> Tensor:
    """Room for the features of ``count`` samples. Raises DataError where it is more than ``memory`` GiB."""
    each = like[0].numel() * like.element_size()
    if each * count > memory * 2**30:
        shape = " x ".join(map(str, like.shape[1:]))
        raise DataError(
            f"the features of {count:,} samples ({shape}, {str(like.dtype).removeprefix('torch.')}) take "
            f"{each * count / 2**30:.3g} GiB, more than memory={memory:g}: set limit= so that no more than "
            f"{int(memory * 2**30 / each):,} samples are read at once, or a larger memory="
        )
    return like.new_empty(count, *like.shape[1:])


def _batches(source: Source, reading: Reading, rows: Tensor) -> Iterator:
    data = dict(reading.data) | {"batch_size": reading.batch_size}
    if data.get("workers") is None and len(rows) < WORKERS_PAY:
        data["workers"] = 0
    return evaluation_batches(source, data, reading.device, rows.tolist(), reading.views, reading.clips)
