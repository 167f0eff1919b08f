"""Any model of timm as an encoder of whole pictures."""

import math
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Features, Grid, take
from jepakit_timm.body import Body, strip, tried
from jepakit_timm.expander import Expander
from jepakit_timm.models import create, fill
from jepakit_timm.whole import frames


class TimmEncoder(nn.Module):
    """A model of timm, then an expander. It eats the pixels themselves (``tokenizer=whole``), frame by frame.

    Args:
        model: timm's name.
        gives: ``pooled``, one vector a frame, through timm's own pooling; ``tokens``, the last map of features (of a
            transformer its patch tokens, normed); ``pyramid``, the maps of several depths, finest first; or ``both``, a
            pyramid of ``tokens`` and ``pooled`` (VICRegL), or of the maps of ``layers`` and ``pooled`` (MC-JEPA).
        layers: which of timm's maps a pyramid has, from 0; null: all, of ``both`` the last.
        stem: whether the maps within the model's stem come before these, one for each of its convolutions.
        pretrained: a file with timm's weights, or a folder with one. Nothing is downloaded.
        size: side of the pictures that the model is made for, where it is made for one; null: timm's.
        drop_path: stochastic depth.
        head: width of a linear layer after the pooling that belongs to the representation; 0: none (LeJEPA has 512).
        expander: widths of the layers after it, which evaluations do not see; of ``both`` those after ``pooled``.
        token_expander: of ``both``, those after each of its maps.
        expander_norm, expander_bias: see ``Expander``.
        model_args: other arguments of the model, as timm calls them.

    Weights that the features do not depend on (a classifier's norm, where no vector is asked for) are left out.

    Raises:
        ValueError: for what timm does not know, for weights that do not fit the model, and at the call for a part of a
            picture or a grid that is not that of the features.
    """

    tiny = {
        "model": "test_vit",
        "gives": "tokens",
        "size": 32,
        "model_args": {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
    }

    def __init__(
        self,
        channels: int = 3,
        model: str = "resnet50",
        gives: Literal["pooled", "tokens", "pyramid", "both"] = "pooled",
        layers: tuple[int, ...] | None = None,
        stem: bool = False,
        pretrained: str | None = None,
        size: int | None = None,
        drop_path: float = 0.0,
        head: int = 0,
        expander: tuple[int, ...] = (),
        token_expander: tuple[int, ...] = (),
        expander_norm: Literal["bn", "ln"] = "bn",
        expander_bias: bool = False,
        model_args: dict[str, Any] = {},  # noqa: B006 (read, never written)
    ):
        super().__init__()
        _refuse(gives, layers=layers, stem=stem, head=head, expander=expander, token_expander=token_expander)
        self.name = model
        asked = {"img_size": size, "drop_path_rate": drop_path}
        given = {name: value for name, value in asked.items() if value}
        made = create(model, {"in_chans": channels, "num_classes": head, **given, **model_args})
        if pretrained is not None and not next(made.parameters()).is_meta:  # there, others take their place
            fill(made, pretrained, head=bool(head))
        self.body = Body(made, gives, layers, stem)
        side = size or made.default_cfg["input_size"][-1]
        found = tried(self.body, channels, side)
        strip(self.body, found.idle)
        maps = [token_expander] * (len(found.widths) - 1)
        wanted = {"both": (*maps, expander), "pyramid": [()] * len(found.widths)}.get(gives, (expander,))
        self.expanders = nn.ModuleList(
            Expander(width, after, expander_norm, expander_bias) if after else nn.Identity()
            for width, after in zip(found.widths, wanted, strict=True)
        )
        self.representation_width = found.widths[-1]
        self.widths = tuple(after[-1] if after else width for width, after in zip(found.widths, wanted, strict=True))
        self.width: int = self.widths[-1]
        self.stride = _stride(gives, found.places, side)
        self.example = _example(channels, side, self.stride, made.default_cfg.get("fixed_input_size", False))

    def forward(self, tokens: Float[Tensor, "B K *D"], index: Int[Tensor, "B K"] | None, grid: Grid) -> Features:
        levels = _levels(self.represent(tokens, index, grid))
        expanded = tuple(expand(level) for expand, level in zip(self.expanders, levels, strict=True))
        return expanded if len(expanded) > 1 else expanded[0]

    def represent(self, tokens: Float[Tensor, "B K *D"], index: Int[Tensor, "B K"] | None, grid: Grid) -> Features:
        """Features before the expander, ``representation_width`` wide; a clip's frames one after the other."""
        if tokens.ndim != 5:
            raise ValueError(f"{self.name} eats the pixels themselves (tokenizer=whole), not tokens that are vectors")
        if tokens.shape[1] != grid.size:
            raise ValueError(
                f"{self.name} encodes whole pictures and cannot be shown {tokens.shape[1]} of {grid.size} tokens: it "
                "needs a masker that shows whole views, or an encoder of tokens in its place"
            )
        ordered = tokens if index is None else take(tokens, index.argsort(1))
        levels = tuple(each.unflatten(0, (-1, grid.t)).flatten(1, 2) for each in self.body(frames(ordered, grid)))
        if self.body.gives in ("tokens", "pooled"):
            return take(self._fitting(levels[0], grid), index)
        return levels if len(levels) > 1 else levels[0]

    def _fitting(self, level: Float[Tensor, "B N d"], grid: Grid) -> Float[Tensor, "B N d"]:
        """Features that have one for each token of the grid."""
        if level.shape[1] != grid.size:
            what = "one vector a frame" if self.stride is None else f"{level.shape[1]} tokens"
            raise ValueError(
                f"{self.name} gives {what}, the grid has {grid.size} tokens; "
                f"tokenizer=whole tokenizer.stride={self.stride or 'null'} is made for it"
            )
        return level


def _refuse(gives: str, **asked: Any) -> None:
    """Raise ValueError for an argument that has no meaning beside ``gives``."""
    homes = {
        "layers": ("pyramid", "both"),
        "stem": ("pyramid", "both"),
        "head": ("pooled", "both"),
        "expander": ("pooled", "tokens", "both"),
        "token_expander": ("both",),
    }
    for name, value in asked.items():
        if value and gives not in homes[name]:
            raise ValueError(f"{name}={value} is for gives={' or '.join(homes[name])}, not for gives={gives}")


def _stride(gives: str, places: list[int], side: int) -> int | None:
    """Pixels along a token's side in the last map of features; None where there is no map."""
    maps = places if gives in ("tokens", "pyramid") else places[:-1]
    return side // math.isqrt(maps[-1]) if maps else None


def _example(channels: int, side: int, stride: int | None, fixed: bool) -> tuple[Grid, tuple[int, ...]]:
    """A grid, and the shape of its tokens, that the model can eat; a smaller one where any size will do."""
    side = side if fixed else side // 2
    if stride is None:
        return Grid(1, 1, 1), (channels, side, side)
    return Grid(1, side // stride, side // stride), (channels, stride, stride)


def _levels(features: Features) -> tuple[Tensor, ...]:
    return features if isinstance(features, tuple) else (features,)
