"""What a network is before training: as the released training script leaves it."""

import torch
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.tokenizer import PatchTokenizer
from torch import nn


def test_weights_are_small_and_normal_biases_zero_and_no_depth_is_scaled():
    torch.manual_seed(0)
    parts = nn.ModuleList([VitEncoder(96, 4, 3), VitPredictor(96, 48, 2, 3), PatchTokenizer(3, 96)])
    for part in parts.modules():
        if isinstance(part, nn.Linear):
            assert abs(part.weight.std() / 0.02 - 1) < 0.05 and abs(part.weight.mean()) < 1e-3
            assert part.weight.abs().max() > 3 * 0.02  # not cut off at two standard deviations
            assert not part.bias.any()
        elif isinstance(part, nn.LayerNorm):
            assert (part.weight == 1).all() and not part.bias.any()
    assert 0.01 < parts[1].mask_token.std() < 0.03


def test_a_tokenizers_weights_may_be_larger():
    torch.manual_seed(0)
    assert abs(PatchTokenizer(3, 96, patch=4, init_std=0.12).proj.weight.std() / 0.12 - 1) < 0.05
