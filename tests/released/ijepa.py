"""The step of the released I-JEPA code, timed beside ours:

    IJEPA_CODE=FOLDER jepakit bench recipe=ijepa_vitb16 data=world data.size=224 against=tests/released/ijepa.py

``IJEPA_CODE`` is a checkout of facebookresearch/ijepa, whose licence is not ours: nothing of it is here. Its models,
collator, parameter groups, schedules and gradient statistics are called in the order of its ``src/train.py``, at the
sizes of the configuration that it is timed beside. Left out are DistributedDataParallel, the gradient scaler, and the
way of the images to the device: they lie there.
"""

import copy
import sys
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

WHERE = "IJEPA_CODE", "https://github.com/facebookresearch/ijepa"


class Step:
    """Their training, step by step; ``models`` and ``optimizer`` are theirs."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, part: Part = unwatched):
        with opened(*WHERE):
            from src.helper import init_opt
            from src.masks.utils import apply_masks
            from src.utils.logging import grad_logger
            from src.utils.tensors import repeat_interleave_batch
        self.apply_masks, self.repeat, self.grad_logger = apply_masks, repeat_interleave_batch, grad_logger
        self.config, self.device, self.part = config, device, part
        self.models, self.momenta = models(config, device), momenta(config)
        made = init_opt(encoder=self.models.encoder, predictor=self.models.predictor, **schedules(config))
        self.optimizer, _, self.scheduler, self.decay = made

    def __call__(self, images: Tensor, asked: Asked) -> float:
        """Images ``B C H W``. Returns the loss."""
        self.scheduler.step()
        self.decay.step()
        with cast(self.config, self.device):
            loss = self.loss(images, asked)
        with self.part("backward"):
            loss.backward()
        with self.part("optimiser"):
            self.optimizer.step()
        self.grad_logger(self.models.encoder.named_parameters())
        with self.part("optimiser"):
            self.optimizer.zero_grad()
        with self.part("ema"):
            self.follow(next(self.momenta))
        return loss.item()

    def loss(self, images: Tensor, asked: Asked) -> Tensor:
        with self.part("target"), torch.no_grad():
            h = self.models.target(images)
            h = F.layer_norm(h, h.shape[-1:])
            h = self.repeat(self.apply_masks(h, asked.target), len(images), repeat=len(asked.context))
        with self.part("context"):
            z = self.models.encoder(images, asked.context)
        with self.part("predictor"):
            z = self.models.predictor(z, asked.context, asked.target)
        with self.part("loss"):
            return F.smooth_l1_loss(z, h)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """The teacher's move, parameter by parameter as they do it."""
        for fast, slow in zip(self.models.encoder.parameters(), self.models.target.parameters(), strict=True):
            slow.data.mul_(momentum).add_((1.0 - momentum) * fast.detach().data)


def models(config: Mapping[str, Any], device: torch.device) -> Models:
    """Theirs, at the sizes of a configuration."""
    with opened(*WHERE):
        from src.models.vision_transformer import VisionTransformer, VisionTransformerPredictor
    wide, narrow = config["encoder"], config["predictor"]
    encoder = VisionTransformer(
        img_size=[config["data"]["size"]],
        patch_size=config["tokenizer"]["patch"],
        embed_dim=wide["width"],
        depth=wide["depth"],
        num_heads=wide["heads"],
        mlp_ratio=wide["mlp_ratio"],
        **CONSTRUCTED,
    )
    predictor = VisionTransformerPredictor(
        num_patches=encoder.patch_embed.num_patches,
        embed_dim=wide["width"],
        predictor_embed_dim=narrow["width"],
        depth=narrow["depth"],
        num_heads=narrow["heads"],
        mlp_ratio=narrow["mlp_ratio"],
        **CONSTRUCTED,
    )
    target = copy.deepcopy(encoder).requires_grad_(False)
    return Models(encoder.to(device), predictor.to(device), target.to(device))


def collator(config: Mapping[str, Any]) -> Callable[[int], Asked]:
    """Theirs; called with a number of images."""
    with opened(*WHERE):
        from src.masks.multiblock import MaskCollator
    masker = config["masker"]
    draw = MaskCollator(
        input_size=config["data"]["size"],
        patch_size=config["tokenizer"]["patch"],
        enc_mask_scale=tuple(masker["context_scale"]),
        pred_mask_scale=tuple(masker["target_scale"]),
        aspect_ratio=tuple(masker["target_aspect"]),
        nenc=1,
        npred=masker["targets"],
        min_keep=masker["min_keep"],
        allow_overlap=masker["allow_overlap"],
    )
    return lambda count: Asked(*draw([0] * count)[1:])


def pixels(config: Mapping[str, Any], device: torch.device) -> Tensor:
    """A batch, ``B C H W``: what is in it costs nothing and saves nothing."""
    size, generator = config["data"]["size"], torch.Generator().manual_seed(0)
    return torch.randn(config["data"]["batch_size"], 3, size, size, generator=generator).to(device)


def prepare(config: Mapping[str, Any], device: torch.device, part: Part) -> Callable[[int], int]:
    """See ``jepakit.bench.theirs.of_file``: a step on the same images, with other masks each time."""
    return stepping(Step(config, device, part), collator(config), pixels(config, device), part)
