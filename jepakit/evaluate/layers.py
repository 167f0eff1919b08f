"""Pooled features of the last layers of any backbone, for probes that read more than the last one.

A pyramid shows its last levels. An encoder that is a stack of blocks, or of stages, shows what comes out of each, of
blocks through the encoder's last norm. Of any other there is one layer.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.device import autocast
from jepakit.evaluate.features import Extracted, Reading, collect, levels_of, pool, represented, undisturbed
from jepakit.protocols import Source
from jepakit.types import Features

DEPTH = 4
"""Last layers that are read, as in I-JEPA's probe (arXiv 2301.08243, appendix A.2)."""

STACKS = ("blocks", "stages")
"""What a module calls its stack, jepakit's and timm's."""


class Stack(NamedTuple):
    """Parts of an encoder one after the other, and how to read what comes out of them: the norm that tokens go through,
    the tokens that are no patches, and where a map has its channels."""

    parts: Sequence[nn.Module]
    norm: nn.Module | None = None
    prefix: int = 0
    channels_last: bool = False


def layers(backbone: nn.Module, source: Source, reading: Reading, rows: Int[Tensor, "n"] | None = None) -> Extracted:
    """As ``features.extract``, but of the last ``DEPTH`` layers, one after the other. The last of them is the same."""
    widths: list[tuple[int, ...]] = []

    def encode(pixels: Tensor) -> Tensor:
        with autocast(pixels.device, reading.precision):
            found = pooled(backbone, pixels, reading.alone)
        widths[:] = [tuple(each.shape[1] for each in found)]
        return torch.cat(found, 1)

    with undisturbed(backbone):
        return collect(encode, source, reading, rows)._replace(widths=widths[0])


def pooled(backbone: nn.Module, pixels: Float[Tensor, "B C T H W"], alone: bool = False) -> list[Float[Tensor, "B _"]]:
    """One vector a sample of each of the last layers, the last one last."""
    with _hooked(stack(backbone)) as inner:
        last: Features = represented(backbone, pixels, alone)
    levels = levels_of(last)
    if len(levels) > 1:
        return [level.float().mean(1) for level in levels[-DEPTH:]]
    earlier = [each.unflatten(0, (len(pixels), -1)).mean(1) for each in inner[-DEPTH:-1]]
    return [*earlier, pool(last)]


def stack(backbone: nn.Module) -> Stack | None:
    """The outermost stack of a backbone; None where it has none."""
    for module in backbone.modules():
        for name in STACKS:
            parts = getattr(module, name, None)
            if isinstance(parts, (nn.ModuleList, nn.Sequential)) and len(parts) > 1:
                return Stack(list(parts), *_read(module))
        named = [getattr(module, f"layer{number}", None) for number in range(1, DEPTH + 1)]  # ResNets
        if all(isinstance(each, nn.Module) for each in named):
            return Stack([each for each in named if each is not None])
    return None


def _read(module: Any) -> tuple[nn.Module | None, int, bool]:
    norm = getattr(module, "norm", None)
    return (
        norm if isinstance(norm, nn.LayerNorm) else None,
        getattr(module, "num_prefix_tokens", 0),
        getattr(module, "output_fmt", "") == "NHWC",
    )


@contextlib.contextmanager
def _hooked(found: Stack | None) -> Iterator[list[Float[Tensor, "B _"]]]:
    """What comes out of the last parts of a stack in one pass, pooled."""
    seen: list[Tensor] = []
    parts = [] if found is None else found.parts[-DEPTH:]
    hooks = [part.register_forward_hook(lambda _, __, out: seen.append(_vector(out, found))) for part in parts]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _vector(out: Tensor, found: Stack | None) -> Float[Tensor, "B _"]:
    """The mean over places, in float32."""
    assert found is not None
    if out.ndim == 4:
        return out.float().mean((1, 2) if found.channels_last else (2, 3))
    fits = found.norm is not None and tuple(found.norm.normalized_shape) == (out.shape[-1],)  # pyright: ignore
    return (found.norm(out) if fits else out)[:, found.prefix :].float().mean(1)  # pyright: ignore[reportOptionalCall]
