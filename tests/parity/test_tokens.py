"""Patches against torch's convolutions, positions against their formula."""

import pytest
import torch
from jepakit_vit.positions import Positions, sincos_2d
from jepakit_vit.tokenizer import PatchTokenizer
from torch.nn import functional as F

from jepakit.types import Grid, take
from tests.parity import plain
from tests.parity.shared import close, randn, shaken, some


def test_a_patch_is_a_step_of_a_convolution():
    tokenizer, pictures = shaken(PatchTokenizer(3, 8, patch=5).double()), randn(2, 3, 1, 20, 35)
    kernel = tokenizer.proj.weight.unflatten(1, (3, 5, 5))
    expected = F.conv2d(pictures.squeeze(2), kernel, tokenizer.proj.bias, stride=5).flatten(2).mT
    close(tokenizer(pictures), expected)
    assert tokenizer.grid(1, 20, 35) == Grid(1, 4, 7)


def test_a_tubelet_is_a_step_of_a_three_dimensional_one():
    tokenizer, clips = shaken(PatchTokenizer(2, 8, patch=3, tubelet=2).double()), randn(2, 2, 6, 9, 12)
    kernel = tokenizer.proj.weight.unflatten(1, (2, 2, 3, 3))
    expected = F.conv3d(clips, kernel, tokenizer.proj.bias, stride=(2, 3, 3)).flatten(2).mT
    close(tokenizer(clips), expected)
    assert tokenizer.grid(6, 9, 12) == Grid(3, 3, 4)


def test_kept_tokens_are_those_of_the_whole_and_no_pixel_else_is_read():
    tokenizer, clips = shaken(PatchTokenizer(2, 8, patch=3, tubelet=2).double()), randn(2, 2, 4, 9, 12)
    keep = some(2, 24, 7)
    clips.requires_grad_()
    kept = tokenizer(clips, keep)
    close(kept, take(tokenizer(clips), keep))
    kept.sum().backward()
    assert (clips.grad != 0).flatten(1).sum(1).tolist() == [7 * 2 * 2 * 3 * 3] * 2


def test_clips_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="1 x 20 x 34 .* 1 x 5 x 5"):
        PatchTokenizer(3, 8, patch=5)(randn(2, 3, 1, 20, 34))


@pytest.mark.parametrize("rows, columns, width", [(14, 14, 192), (16, 16, 1280), (1, 9, 8), (9, 1, 8), (5, 12, 16)])
def test_positions_are_what_the_formula_says(rows, columns, width):
    close(sincos_2d(Grid(1, rows, columns), width), plain.positions(rows, columns, width))


def test_positions_are_added_where_the_tokens_lie():
    grid, index = Grid(1, 5, 7), some(2, 35, 6)
    table = plain.positions(5, 7, 12)
    found = Positions(12)(torch.zeros(2, 6, 12, dtype=torch.float64), index, grid)
    close(found, torch.stack([table[row] for row in index]))
    close(Positions(12)(torch.zeros(2, 35, 12, dtype=torch.float64), None, grid), table.expand(2, -1, -1))


def test_positions_stay_in_float32_for_tokens_of_16_bits():
    positions, index = Positions(12), some(2, 35, 6)
    found = positions.at(index, Grid(1, 5, 7), torch.zeros(1, dtype=torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), plain.positions(5, 7, 12)[index], rtol=0, atol=1e-7)


def test_every_token_has_a_position_of_its_own():
    table = sincos_2d(Grid(1, 32, 32), 16)
    assert torch.cdist(table, table).fill_diagonal_(torch.inf).min() > 0.1


@pytest.mark.parametrize("grid, width, reason", [(Grid(2, 4, 4), 16, "2 x 4 x 4"), (Grid(1, 4, 4), 18, "18")])
def test_positions_that_there_are_not_are_refused(grid, width, reason):
    with pytest.raises(ValueError, match=reason):
        sincos_2d(grid, width)
