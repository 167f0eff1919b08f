"""What goes by depth in fine-tuning: learning rates that fall towards the pixels, paths dropped towards the end.

The rate of layer ``l`` is ``lr * decay ** (top - l)``. Layer 0 is what comes before the blocks (patch embedding,
positions), layer i the i-th block; ``top``, one more than there are blocks, is what comes after them, and the head.
Source: BEiT (arXiv 2106.08254), as in the released MAE code.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from timm.layers import DropPath
from timm.models import group_parameters
from torch import nn

from jepakit.errors import ConfigError

STACKS = ("blocks", "stages", "layers")
"""What a stack of blocks is called in an encoder that does not itself say what its layers are."""


class Layers(NamedTuple):
    """The layer of each parameter of a backbone by name, and that of the head; without blocks, nothing and 0."""

    of: dict[str, int]
    top: int


def layers(backbone: nn.Module) -> Layers:
    """The layers of the first part of a backbone that has some.

    A model of timm says what they are (``group_matcher``; it counts a last norm as part of the last block). Elsewhere
    they are the entries of a stack of blocks, and parameters made before the stack come before it.
    """
    for prefix, part in backbone.named_modules():
        if found := _own(part):
            return Layers(dict(_all(backbone, f"{prefix}." if prefix else "", found)), found.top)
    return Layers({}, 0)


def groups(backbone: nn.Module, head: nn.Module, lr: float, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """The optimiser's groups, one for each rate and weight decay; ``layer`` says whose they are.

    Biases, other vectors, and what a model of timm exempts have no weight decay.
    """
    known, exempt = layers(backbone), set(_exempt(backbone))
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, p in (*backbone.named_parameters(), *head.named_parameters("head")):
        decays = p.ndim > 1 and name not in exempt and not name.endswith("bias")
        found.setdefault((known.of.get(name, known.top), decays), []).append(p)
    return [
        {
            "params": params,
            "layer": layer,
            "lr": lr * decay ** (known.top - layer),
            "weight_decay": weight_decay * decays,
        }
        for (layer, decays), params in sorted(found.items(), key=lambda item: item[0])
    ]


def drop_paths(backbone: nn.Module, rate: float) -> None:
    """Drop paths (stochastic depth, arXiv 1603.09382) in training: of the first block none, of the last ``rate``.

    Raises ConfigError where the encoder has no places for it.
    """
    places: dict[str, list[str]] = {}
    for name, part in backbone.named_modules():
        block, _, last = name.rpartition(".")
        if last.startswith("drop_path") and isinstance(part, DropPath | nn.Identity):
            places.setdefault(block, []).append(last)
    if rate and not places:
        raise ConfigError(
            f"drop_path={rate:g}: this encoder has no paths that could be dropped; drop_path=0 drops none"
        )
    for number, (block, names) in enumerate(places.items()):
        for name in names:
            setattr(backbone.get_submodule(block), name, DropPath(rate * number / max(1, len(places) - 1)))


def _own(part: Any) -> Layers | None:
    """The layers of a module, if it has some."""
    if callable(getattr(part, "group_matcher", None)):
        own = group_parameters(part, part.group_matcher(coarse=False), reverse=True)
        return Layers(own, max(own.values()) + 1)
    for name in STACKS:
        blocks = getattr(part, name, None)
        if isinstance(blocks, nn.ModuleList | nn.Sequential) and len(blocks):
            return Layers(dict(_stacked(part, f"{name}.", len(blocks) + 1)), len(blocks) + 1)
    return None


def _stacked(part: nn.Module, prefix: str, top: int) -> Iterator[tuple[str, int]]:
    after = False
    for name, _ in part.named_parameters():
        inside = name.startswith(prefix)
        after = after or inside
        yield name, int(name.removeprefix(prefix).split(".")[0]) + 1 if inside else top * after


def _all(backbone: nn.Module, prefix: str, found: Layers) -> Iterator[tuple[str, int]]:
    """Those of the part at ``prefix``; what was made before it is of the first layer, what came after of the last."""
    after = False
    for name, _ in backbone.named_parameters():
        inside = name.startswith(prefix)
        after = after or inside
        yield name, found.of[name.removeprefix(prefix)] if inside else found.top * after


def _exempt(backbone: nn.Module) -> Iterator[str]:
    for prefix, part in backbone.named_modules():
        if callable(spared := getattr(part, "no_weight_decay", None)):
            yield from (f"{prefix}.{name}" if prefix else name for name in spared())
