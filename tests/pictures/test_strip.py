"""Masks of clips as a picture that moves."""

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit.errors import ConfigError
from jepakit.pictures import strip
from jepakit.pictures.entry import command
from jepakit.pictures.strip import MOST, PAUSE, REST, SUFFIXES, numbers
from jepakit.types import Grid, Mask

GRID = Grid(4, 2, 2)


def clips(frames: int = 4) -> torch.Tensor:
    """Two clips, each frame of one grey: the first gets brighter, the second darker."""
    greys = torch.linspace(0, 255, frames).round().to(torch.uint8)
    return torch.stack([greys, greys.flip(0)])[:, None, :, None, None].expand(2, 3, frames, 16, 16)


def mask() -> Mask:
    """The left half is seen at all times, the right half imagined."""
    left = torch.tensor([0, 2, 4, 6, 8, 10, 12, 14]).expand(2, -1)
    return Mask(left, (left + 1)[:, None])


def shown(path) -> tuple[list[np.ndarray], list[int]]:
    """The frames, and the milliseconds that each of them stays."""
    frames, pauses = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
            pauses.append(image.info["duration"])
    return frames, pauses


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_frame_is_shown_in_its_time(suffix, tmp_path):
    out = strip(clips(), [mask()], GRID, tmp_path / f"new/strip{suffix}", "a caption")
    frames, pauses = shown(out)
    assert pauses == [PAUSE] * 3 + [REST] and out.stat().st_size < 50_000
    middle = [frame[frame.shape[0] // 4, 60].mean() for frame in frames]  # of the first clip, as it is
    assert middle == pytest.approx([0, 85, 170, 255], abs=8)


def test_of_long_clips_some_frames_are_shown_and_of_few_all():
    assert numbers(8) == list(range(8)) and numbers(64) == list(range(0, 64, 64 // MOST)) and numbers(1) == [0]


def test_context_and_targets_change_with_time(tmp_path):
    """Seen in the first half of the clip, imagined in the second."""
    seen = torch.arange(8).expand(1, -1)
    grey = torch.full((1, 3, 8, 16, 16), 40, dtype=torch.uint8)
    frames, pauses = shown(strip(grey, [Mask(seen, seen[:, None] + 8)], GRID, tmp_path / "strip.gif"))
    assert pauses == [4 * PAUSE, 3 * PAUSE + REST]  # frames that are alike are one
    assert np.abs(frames[1] - frames[0]).max() > 100


def config(**data) -> dict:
    from jepakit.config import resolve

    made = resolve(["recipe=vjepa_vitt16_small", "data=world_moving", "data.size=32", "tokenizer.patch=8"])
    return made | {"data": made["data"] | {"frames": 4} | data}


def test_show_masks_draws_clips_twice(tmp_path, capsys):
    out = command("masks", config(), tmp_path / "masks.png")
    assert out == tmp_path / "masks.webp" and capsys.readouterr().out == f"{tmp_path}/masks.png\n"
    assert (tmp_path / "masks.png").is_file() and len(shown(out)[0]) == 4
    assert command("masks", config(), tmp_path / "only.gif") == tmp_path / "only.gif"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.png", "masks.webp", "only.gif"]


def test_what_cannot_move_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing moves in data=world"):
        command("masks", config(frames=1), tmp_path / "masks.gif")
    with pytest.raises(ConfigError, match="ends in one of .gif, .webp, .apng"):
        strip(clips(), [mask()], GRID, tmp_path / "strip.png")
