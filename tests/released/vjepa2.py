"""The step of the released V-JEPA 2 code, timed beside ours:

    VJEPA2_CODE=FOLDER jepakit bench recipe=vjepa2_vitl16 data=world_moving data.size=224 encoder=vjepa2_tiny \
        against=tests/released/vjepa2.py

``VJEPA2_CODE`` is a checkout of facebookresearch/vjepa2. Its models, collator, parameter groups and schedules are
called in the order of its ``app/vjepa/train.py``, at the sizes of the configuration that it is timed beside, and with
activation checkpointing where that has it. Left out are DistributedDataParallel, the gradient scaler, and the way of
the clips to the device: they lie there.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[2]))  # the bench reads this file by its path

from tests.released.checkout import (
    CONSTRUCTED,
    Asked,
    Models,
    Part,
    cast,
    momenta,
    opened,
    schedules,
    stepping,
    unwatched,
)

WHERE = "VJEPA2_CODE", "https://github.com/facebookresearch/vjepa2"


class Step:
    """Their training, step by step; ``models`` and ``optimizer`` are theirs."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, part: Part = unwatched):
        with opened(*WHERE):
            from app.vjepa.utils import init_opt
            from src.masks.utils import apply_masks
        self.apply_masks, self.config, self.device, self.part = apply_masks, config, device, part
        self.models, self.momenta = models(config, device), momenta(config)
        optim = {"betas": tuple(config["optim"]["betas"]), "eps": config["optim"]["eps"], "is_anneal": False}
        parts = {"encoder": self.models.encoder, "predictor": self.models.predictor}
        self.optimizer, _, self.scheduler, self.decay = init_opt(**parts, **optim, **schedules(config))

    def __call__(self, clips: Tensor, asked: Asked) -> float:
        """Clips ``B C T H W``. Returns the loss."""
        self.scheduler.step()
        self.decay.step()
        with cast(self.config, self.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they choose kernels by a context that has another name by now
            loss = self.loss([clips], [asked.context], [asked.target])
        with self.part("backward"):
            loss.backward()
        with self.part("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        with self.part("ema"):
            self.follow(next(self.momenta))
        return loss.item()

    def loss(self, clips: list[Tensor], context: list[list[Tensor]], target: list[list[Tensor]]) -> Tensor:
        """Of clips of several lengths, of which there is one here, with the masks of each."""
        with self.part("target"), torch.no_grad():
            h = [F.layer_norm(each, each.shape[-1:]) for each in self.models.target(clips)]
        with self.part("context"):
            z = self.models.encoder(clips, context)
        with self.part("predictor"):
            z = self.models.predictor(z, context, target)
        with self.part("loss"):
            h = [self.apply_masks(each, asked, concat=False) for each, asked in zip(h, target, strict=True)]
            pairs = [pair for some in zip(z, h, strict=True) for pair in zip(*some, strict=True)]
            return sum(torch.mean(torch.abs(guess - truth)) for guess, truth in pairs) / len(pairs)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """The teacher's move, which is a multi-tensor operation there."""
        slow, fast = list(self.models.target.parameters()), list(self.models.encoder.parameters())
        torch._foreach_mul_(slow, momentum)
        torch._foreach_add_(slow, fast, alpha=1 - momentum)


def models(config: Mapping[str, Any], device: torch.device) -> Models:
    """Theirs, at the sizes of a configuration."""
    with opened(*WHERE):
        from src.models.predictor import VisionTransformerPredictor
        from src.models.vision_transformer import VisionTransformer
        from src.utils.wrappers import MultiSeqWrapper, PredictorMultiSeqWrapper
    wide, narrow, shared = config["encoder"], config["predictor"], cut(config)
    encoder = VisionTransformer(
        embed_dim=wide["width"],
        depth=wide["depth"],
        num_heads=wide["heads"],
        mlp_ratio=wide["mlp_ratio"],
        use_activation_checkpointing=wide["checkpoint_blocks"],
        **shared,
    )
    predictor = VisionTransformerPredictor(
        embed_dim=wide["width"],
        predictor_embed_dim=narrow["width"],
        depth=narrow["depth"],
        num_heads=narrow["heads"],
        mlp_ratio=narrow["mlp_ratio"],
        num_mask_tokens=narrow["mask_tokens"],
        use_mask_tokens=True,
        use_activation_checkpointing=narrow["checkpoint_blocks"],
        **shared,
    )
    encoder, predictor = MultiSeqWrapper(encoder).to(device), PredictorMultiSeqWrapper(predictor).to(device)
    return Models(encoder, predictor, copy.deepcopy(encoder).requires_grad_(False))


def cut(config: Mapping[str, Any]) -> dict[str, Any]:
    """What both are told of the clips and how they are cut, and the released settings of attention."""
    return {
        "img_size": config["data"]["size"],
        "patch_size": config["tokenizer"]["patch"],
        "num_frames": config["data"]["frames"],
        "tubelet_size": config["tokenizer"]["tubelet"],
        "use_rope": True,
        "use_sdpa": True,
        **CONSTRUCTED,
    }


def collator(config: Mapping[str, Any]) -> Callable[[int], Asked]:
    """Theirs; called with a number of clips."""
    with opened(*WHERE):
        from src.masks.multiseq_multiblock3d import MaskCollator
    masker, frames = config["masker"], config["data"]["frames"]
    kinds = [
        {
            "spatial_scale": (scale, scale),
            "temporal_scale": tuple(masker["temporal_scale"]),
            "aspect_ratio": tuple(masker["aspect"]),
            "num_blocks": blocks,
            "max_temporal_keep": masker["max_temporal_keep"],
            "max_keep": masker["max_keep"],
        }
        for blocks, scale in zip(masker["blocks"], masker["scales"], strict=True)
    ]
    size, tokenizer = config["data"]["size"], config["tokenizer"]
    draw = MaskCollator(kinds, [frames], size, tokenizer["patch"], tokenizer["tubelet"])
    sample = [(0, [[0] * frames])]  # by the length of a sample's last list they know the number of frames

    def drawn(count: int) -> Asked:
        ((_, *masks),) = draw(sample * count)
        return Asked(*masks)

    return drawn


def pixels(config: Mapping[str, Any], device: torch.device) -> Tensor:
    """A batch, ``B C T H W``: what is in it costs nothing and saves nothing."""
    data, generator = config["data"], torch.Generator().manual_seed(0)
    shape = data["batch_size"], 3, data["frames"], data["size"], data["size"]
    return torch.randn(shape, generator=generator).to(device)


def prepare(config: Mapping[str, Any], device: torch.device, part: Part) -> Callable[[int], int]:
    """See ``jepakit.bench.theirs.of_file``: a step on the same clips, with other masks each time."""
    return stepping(Step(config, device, part), collator(config), pixels(config, device), part)
