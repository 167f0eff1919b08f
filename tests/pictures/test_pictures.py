import json
import math

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import Reading
from jepakit.log import read
from jepakit.pictures import command, curves, features, masks
from jepakit.pictures.curves import points
from jepakit.pictures.features import colours
from jepakit.pictures.panels import cells, first_frame, frame, slices, time_slice, veil
from jepakit.types import Grid, Mask


def pictures(t: int = 1, size: int = 16, channels: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, channels, t, size, size), generator=rng, dtype=torch.uint8)


def mask(grid: Grid, blocks: int = 2) -> Mask:
    order = torch.arange(grid.size).expand(2, -1)
    return Mask(order[:, : grid.size // 2], order[:, grid.size // 2 :][:, : 2 * blocks].unflatten(1, (blocks, 2)))


@pytest.mark.parametrize("grid", [Grid(1, 4, 4), Grid(1, 3, 5), Grid(2, 4, 4), Grid(8, 2, 2)])
def test_masks_of_any_grid(grid, tmp_path):
    out = masks(pictures(t=2 * grid.t), [mask(grid), mask(grid, 1)], grid, tmp_path / "new/masks.png")
    assert matplotlib.image.imread(out).std() > 0.05


def test_masks_grey_what_is_not_seen(tmp_path):
    white, grid = torch.full((1, 3, 1, 16, 16), 255, dtype=torch.uint8), Grid(1, 4, 4)
    grey = veil(np.ones((1, 1, 3)), np.ones((1, 1), bool)).mean()

    def share(kept: int) -> float:
        seen = Mask(torch.arange(kept)[None], torch.arange(16)[None, None])  # all imagined: its panel is all tinted
        image = matplotlib.image.imread(masks(white, [seen], grid, tmp_path / f"{kept}.png"))[..., :3]
        return float((np.abs(image - grey).max(-1) < 0.01).mean())

    hidden = [share(kept) for kept in (16, 12, 8, 4)]
    assert hidden[0] < 0.01 and hidden == sorted(hidden)
    assert hidden[3] == pytest.approx(3 * hidden[1], rel=0.05)


def test_whole_views_pairs_of_views_and_grey_pictures(tmp_path):
    grid = Grid(1, 4, 4)
    both = Mask(None, None, context_view=0, target_view=1)
    assert masks([pictures(), pictures()], [both], grid, tmp_path / "pair.png").is_file()
    assert masks(pictures(channels=1), [both._replace(target_view=0)], grid, tmp_path / "grey.png").is_file()


def test_cells_and_slices():
    meant = cells(torch.tensor([0, 5, 11]), Grid(1, 3, 4))
    assert np.argwhere(meant[0]).tolist() == [[0, 0], [1, 1], [2, 3]]
    assert cells(None, Grid(2, 1, 1)).all()
    with pytest.raises(ConfigError, match="names token 12"):
        cells(torch.tensor([12]), Grid(1, 3, 4))
    assert slices(Grid(8, 1, 1)) == [0, 4, 7] and slices(Grid(1, 9, 9)) == [0] and slices(Grid(2, 1, 1)) == [0, 1]
    clip = torch.arange(8, dtype=torch.uint8).view(1, 8, 1, 1).expand(3, -1, 2, 2)
    numbers = [first_frame(piece, 8, Grid(4, 1, 1)) for piece in range(4)]
    assert numbers == [0, 2, 4, 6] and [time_slice(n, 8, Grid(4, 1, 1)) for n in (0, 1, 2, 7)] == [0, 0, 1, 3]
    assert [round(frame(clip, number)[0, 0, 0] * 255) for number in numbers] == numbers


def log(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_curves_of_a_run(tmp_path):
    lines = [{"step": i, "loss": 1 / (i + 1), "std": 0.5, "rank": 9.0, "grad_norm": 1.0} for i in range(200)]
    lines += [{"step": i, "knn": 0.3, "rankme": 5.0, "knn_random": 0.2} for i in range(0, 200, 50)]
    out = curves(log(tmp_path / "log.jsonl", lines), tmp_path / "curves.png")
    assert matplotlib.image.imread(out).std() > 0.05


def test_what_a_log_may_hold(tmp_path):
    path = log(tmp_path / "log.jsonl", [{"step": 2, "loss": math.nan}, {"step": 1, "loss": 3.0}, {"event": "resumed"}])
    path.write_text(path.read_text() + json.dumps({"step": 1, "loss": 2.0}) + '\n{"step": 3, "lo')
    assert points(read(path), "loss") == ([1], [2.0])
    path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        read(path)
    with pytest.raises(DataError, match="no such log"):
        curves(tmp_path / "none.jsonl", tmp_path / "x.png")
    with pytest.raises(DataError, match="to draw"):
        curves(log(path, [{"step": 1}]), tmp_path / "x.png")


class Cells(nn.Module):
    """A backbone whose tokens are the mean colours of 4 x 4 patches, as the last of two levels."""

    def grid(self, pixels):
        return Grid(pixels.shape[2], pixels.shape[3] // 4, pixels.shape[4] // 4)

    def forward(self, pixels, keep=None):
        tokens = nn.functional.avg_pool3d(pixels, (1, 4, 4)).flatten(2).mT
        return tokens[:, :1], tokens


@pytest.mark.parametrize("t", [1, 4])
def test_features_as_colours(t, tmp_path):
    reading = Reading({"mean": [0.5] * 3, "std": [0.5] * 3, "batch_size": 1})
    before = torch.random.get_rng_state()
    out = features({"trained": Cells(), "random": Cells()}, pictures(t), reading, tmp_path / "features.png")
    assert matplotlib.image.imread(out).std() > 0.05
    assert torch.equal(before, torch.random.get_rng_state())


def test_colours_tell_tokens_apart_and_have_no_sign_of_their_own():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 50, 8, generator=rng).exp()
    found = colours(tokens)
    assert found.shape == (2, 50, 3) and found.min() == 0 and found.max() == 1
    turned = tokens @ torch.linalg.qr(torch.randn(8, 8, generator=rng))[0]
    np.testing.assert_allclose(found, colours(turned), atol=1e-3)
    assert np.isfinite(colours(torch.ones(1, 9, 2))).all()


def test_an_unknown_picture_is_named():
    with pytest.raises(ConfigError, match="did you mean 'masks'"):
        command("mask", {})
    with pytest.raises(ConfigError, match="needs a run"):
        command("curves", {})
