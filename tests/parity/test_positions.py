"""Positions on another grid than the native one: the formula written out, and what others resample a table to."""

import math

import pytest
import torch
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.positions import Positions, sincos_2d
from jepakit_vit.predictor import VitPredictor
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional as F

from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.types import Grid
from tests.parity import plain
from tests.parity.shared import close, randn, small

WIDTH = 24
GRIDS = [((6, 6), (12, 12)), ((6, 6), (3, 4)), ((16, 16), (32, 20)), ((5, 7), (5, 9)), ((4, 2), (1, 1))]
"""Native grid, and the one that is used."""


def written_out(native: tuple[int, int], used: tuple[int, int], width: int) -> Tensor:
    """Token by token, channel by channel: column then row, sine then cosine, the finest wave first."""
    table, quarter = [], width // 4
    for row in range(used[0]):
        for column in range(used[1]):
            x = (column + 0.5) * native[1] / used[1] - 0.5
            y = (row + 0.5) * native[0] / used[0] - 0.5
            waves = [1 / 10000 ** (k / quarter) for k in range(quarter)]
            table.append([wave(place * w) for place in (x, y) for wave in (math.sin, math.cos) for w in waves])
    return torch.tensor(table, dtype=torch.float64)


@pytest.mark.parametrize("native, used", GRIDS)
def test_the_formula_written_out(native, used):
    close(sincos_2d(Grid(1, *used), WIDTH, native), written_out(native, used, WIDTH))


@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 7), (16, 16), (32, 28), (64, 63)])
def test_on_the_native_grid_nothing_changes_to_the_last_bit(rows, columns):
    grid = Grid(1, rows, columns)
    assert torch.equal(sincos_2d(grid, WIDTH, (rows, columns)), sincos_2d(grid, WIDTH))
    close(sincos_2d(grid, WIDTH), plain.positions(rows, columns, WIDTH))


def test_twice_the_grid_stays_within_the_extent_of_the_native_one():
    """Places of a finer grid lie a quarter of a patch beside those of the native one; without scaling, far beyond."""
    native, fine = sincos_2d(Grid(1, 8, 8), WIDTH), sincos_2d(Grid(1, 16, 16), WIDTH, (8, 8))
    nearest = native.view(8, 8, -1).repeat_interleave(2, 0).repeat_interleave(2, 1).flatten(0, 1)
    beyond = sincos_2d(Grid(1, 16, 16), WIDTH)
    assert F.cosine_similarity(fine, nearest, dim=1).min() > 0.99
    assert F.cosine_similarity(beyond, nearest, dim=1).min() < 0.7


def test_close_to_what_others_resample_the_table_to():
    """Inside, off the border, where both interpolations have all of their neighbours."""
    native, used = (16, 16), (32, 32)
    table = sincos_2d(Grid(1, *native), 64)
    ours = sincos_2d(Grid(1, *used), 64, native).view(*used, -1)
    image = table.view(1, *native, -1).permute(0, 3, 1, 2)
    hugging_face = F.interpolate(image, size=used, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    theirs = resample_abs_pos_embed(table[None].float(), list(used), list(native), num_prefix_tokens=0)
    for other in (hugging_face, theirs[0].double().view(*used, -1)):
        assert (ours - other)[4:-4, 4:-4].abs().max() < 0.04


def test_encoder_and_predictor_hand_their_native_grid_on():
    encoder = VitEncoder(WIDTH, 1, 3, native=(2, 3)).double()
    predictor = VitPredictor(WIDTH, 16, 1, 2, native=(2, 3)).double()
    for part in (encoder, predictor):
        assert isinstance(part.positions, Positions) and part.positions.native == (2, 3)
    tokens, grid = randn(2, 24, WIDTH), Grid(1, 4, 6)
    x = tokens + written_out((2, 3), (4, 6), WIDTH)
    for block in encoder.blocks:
        x = block(x)
    close(encoder(tokens, None, grid), encoder.norm(x))


def test_a_setting_of_the_command_line_reaches_both():
    built, _ = small("encoder.native=[3,3]", "predictor.native=[3,3]")
    parts = (built.jepa.backbone.encoder, built.jepa.predictor, built.jepa.target_backbone.encoder)
    assert [part.positions.native for part in parts] == [(3, 3)] * 3
    assert resolve(["recipe=demo"])["encoder"]["native"] is None


@pytest.mark.parametrize("native", ["[16]", "[0,16]", "[1,2,3]"])
def test_what_is_no_grid_is_refused(native):
    with pytest.raises(ConfigError, match="encoder 'vit'"):
        small(f"encoder.native={native}")


def test_a_grid_without_a_row_is_named():
    with pytest.raises(ValueError, match=r"native=\[0, 16\] is no grid"):
        Positions(WIDTH, (0, 16))
