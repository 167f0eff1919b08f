"""A trained encoder of clips: what it makes of videos, tensors, frames and pictures, at other lengths and sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import jepakit
from jepakit.cli import main
from jepakit.data import open_source
from jepakit.data.loader import evaluation_batches
from jepakit.errors import ConfigError, DataError
from jepakit.types import Grid
from jepakit.weights.model import Frozen, freeze
from jepakit.weights.start import begin
from tests.data import make
from tests.weights import files, made, video
from tests.weights.test_features_verb import opened


@pytest.fixture
def encoder() -> Frozen:
    return freeze(video.model("vjepa2"), "file")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Four videos in two classes."""
    return make.videos(tmp_path_factory.mktemp("films") / "films", each=2)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_what_it_says_of_itself(encoder):
    assert (encoder.grid, encoder.frames, encoder.size) == (Grid(2, 4, 4), 4, 32)
    assert "3 x 4 x 32 x 32 pixels -> 2 x 4 x 4 tokens, 24 wide; positions as trained" in repr(encoder)


def test_videos_as_an_evaluation_sees_them(films):
    """By the frames, stride and decoder of the run's data, or of the released model."""
    found = video.model("vjepa2")
    data = {**found.config["data"], "name": "video", "root": str(films), "stride": 2}
    found = type(found)({**found.config, "data": data}, found.backbones)
    encoder = freeze(found, "file")
    source = open_source({"name": "video", "root": str(films), "frames": 4, "stride": 2})
    (batch,) = evaluation_batches(source, made.config()["data"] | {"batch_size": 4})
    paths = [source.path(i) for i in range(len(source))]
    assert torch.equal(encoder.preprocess(paths), batch.views[0])
    assert torch.equal(encoder.preprocess(Path(paths[1])), batch.views[0][1:2])
    assert torch.equal(encoder(encoder.preprocess(paths)), encoder.backbone(batch.views[0]))
    assert encoder.pooled(batch.views[0]).shape == (4, 24)


def test_tensors_arrays_and_frames_are_the_same_clips(encoder):
    clip = noise(3, 4, 40, 52)
    last = clip.permute(1, 2, 3, 0)
    images = [Image.fromarray(frame.numpy()) for frame in last]
    expected = encoder.preprocess(clip)
    assert expected.shape == (1, 3, 4, 32, 32)
    for shown in (last, last.numpy(), clip[None], last[None], np.ascontiguousarray(clip.numpy()), [clip], [images]):
        assert torch.equal(encoder.preprocess(shown), expected)
    assert torch.equal(encoder.preprocess([list(clip.transpose(0, 1)), clip]), expected.expand(2, -1, -1, -1, -1))
    assert encoder.preprocess(noise(5, 3, 2, 40, 40)).shape == (5, 3, 2, 32, 32)


def test_a_clip_of_three_frames_has_its_colours_last(encoder):
    """Three frames, three colours: a picture three pixels wide there is none."""
    last = noise(3, 40, 40, 3)
    assert torch.equal(encoder.preprocess(last), encoder.preprocess(last.permute(3, 0, 1, 2)[None]))


def test_pictures_are_clips_of_one_frame(encoder, tmp_path):
    picture = noise(3, 40, 40)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    expected = encoder.preprocess(picture)
    assert expected.shape == (1, 3, 1, 32, 32)
    assert torch.equal(encoder.preprocess([tmp_path / "a.png", Image.open(tmp_path / "a.png")]), expected[[0, 0]])
    still = encoder(expected)
    assert still.shape == (1, 16, 24) and torch.equal(still, encoder(expected.expand(-1, -1, 2, -1, -1)))
    assert torch.equal(still, encoder(expected[:, :, 0]))


@pytest.mark.parametrize(
    "shown, said",
    [
        (torch.zeros(3, 4, 8, 8), "a clip is the path of a video, .*, not a torch.float32 of 4 axes"),
        (noise(4, 3, 8, 8), r"a clip 4 x 3 x 8 x 8 has 3 channels neither first \(C T H W\) nor last \(T H W C\)"),
        (noise(8, 8), "uint8 of 2 axes"),
        ([[]], "a clip is made of pictures of one size, not of nothing"),
        ([[noise(3, 8, 8), noise(3, 9, 8)]], "not of frames of 8 x 8, 8 x 9"),
        ([[noise(3, 2, 8, 8)]], "not of videos among its frames"),
        ([noise(3, 8, 8), noise(3, 4, 8, 8)], "clips of 1 and 4 frames cannot be one batch"),
        ([], "there is no picture to preprocess"),
        (7, "not a int"),
    ],
)
def test_what_is_no_clip_is_refused(encoder, shown, said):
    with pytest.raises(ConfigError, match=said):
        encoder.preprocess(shown)


def test_videos_that_cannot_be_read_are_named(encoder, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"")
    for name, said in (("broken.mp4", "empty file"), ("missing.mp4", "No such file")):
        with pytest.raises(DataError, match=f"{name}: {said}"):
            encoder.preprocess(tmp_path / name)


def test_another_number_of_frames_and_another_size():
    """Places in a frame are scaled to the trained ones, those in time go on."""
    found = video.model("vjepa2")
    longer = freeze(found, "file", size=64, frames=8)
    assert (longer.grid, longer.frames) == (Grid(4, 8, 8), 8)
    assert longer.about["positions"] == "scaled to the trained 4 x 4"
    clips = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(longer(clips), freeze(found, "file")(clips))
    settings = longer.backbone.encoder.positions
    assert settings.native == (4, 4) and torch.equal(
        settings.tables.of(Grid(4, 4, 4))[:32], settings.tables.of(Grid(2, 4, 4))
    )
    with pytest.raises(ConfigError, match=r"frames=5: .* boxes of 2 x 8 x 8 \(did you mean 6\?\)"):
        freeze(found, "file", frames=5)
    with pytest.raises(ConfigError, match="cannot be cut into boxes .*; encoder.preprocess makes 4 x 32 x 32"):
        freeze(found, "file")(clips[:, :, :3])


def test_the_whole_native_grid_is_kept():
    found = video.model("vjepa native")
    assert freeze(found, "file").backbone.encoder.positions.native == (3, 2, 2)


def test_an_encoder_of_pictures_knows_no_clips():
    encoder = freeze(files.model(), "file")
    with pytest.raises(ConfigError, match="2-D positions know no time.*; encoder.preprocess makes 32 x 32"):
        encoder(torch.zeros(1, 3, 2, 32, 32))


def test_a_size_that_the_file_does_not_say_is_the_one_that_is_asked_for(tmp_path):
    file = video.checkpoint(tmp_path, tables=False, tokens=6)
    found = jepakit.weights.read(file, video.GIVEN)
    asked = freeze(found, "file", size=64)
    assert asked.about["positions"] == "as trained" and asked.about["assumed"] == {"frames": 64}
    assert freeze(found, "file").size == 256 and found.about["assumed"]["size"] == 256


# Features -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["vjepa", "vjepa2", "hf_vjepa2"])
def test_features_of_a_folder_of_videos(to, films, tmp_path):
    file = files.exported(video.written(tmp_path, "vjepa" if to == "vjepa" else "vjepa2"), to)
    out = tmp_path / "out.safetensors"
    words = ["data.batch_size=3", "data.stride=2", "data.fps=null", "device=cpu", "pool=none"]
    assert main(["features", f"file={file}", f"data.root={films}", f"out={out}", *words]) == 0
    tensors, about = opened(out)
    encoder = jepakit.load(file)
    source = open_source({"name": "video", "root": str(films), "frames": 4, "stride": 2})
    batches = evaluation_batches(source, encoder.data | {"batch_size": 3})
    assert torch.equal(tensors["features"], torch.cat([encoder(batch.views[0]) for batch in batches]))
    assert about["grid"] == [2, 4, 4] and about["preprocessing"]["frames"] == 4
    assert tensors["label.class"].tolist() == [0, 0, 1, 1] and about["paths"][0].startswith("cat/")


def test_features_of_pictures_and_of_longer_clips(films, tmp_path):
    file = video.written(tmp_path, "vjepa2")
    make.labelled(tmp_path / "photos", each=1)
    for name, words, grid in (
        ("a", ["data=folder", f"data.root={tmp_path / 'photos'}"], [1, 4, 4]),
        ("b", [f"data.root={films}", "data.frames=8", "data.stride=1", "limit=1"], [4, 4, 4]),
    ):
        out = tmp_path / f"{name}.safetensors"
        assert main(["features", f"file={file}", f"out={out}", "device=cpu", *words]) == 0
        assert opened(out)[1]["grid"] == grid


# A run that starts from them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, to", [("vjepa", "vjepa"), ("vjepa2", "vjepa2"), ("vjepa2", "hf_vjepa2")])
def test_a_run_starts_from_them(name, to, tmp_path):
    """Encoder, teacher, predictor and moments, to the last bit, as from jepakit's own file."""
    place = files.exported(video.written(tmp_path, name), to)
    settings = (*video.CLIPS, *video.MODELS[name], "predictor.depth_scaled=true", "encoder.depth_scaled=true")
    config, said = made.config(*settings, f"start.weights={place}"), []
    built = made.build(config)
    optimizer = made.adamw(built.jepa, config["optim"])
    begin(built.jepa, optimizer, config, said.append)
    found = made.weights(config, built, optimizer)
    files.same(found, video.model(name))
    assert "predictor, moments of the optimizer" in said[0]


def test_a_run_starts_from_a_released_file(tmp_path):
    file = video.checkpoint(tmp_path, tokens=10)
    files.exported(file, "safetensors", **video.GIVEN, size=32, frames=4)
    depths = ("encoder.depth=2", "predictor.depth=2", "predictor.width=12", "start.weights=released")
    config = made.config(*video.CLIPS, *video.MODELS["vjepa2"], *depths)
    config["start"]["weights"], said = str(tmp_path / "safetensors.safetensors"), []
    built = made.build(config)
    with pytest.raises(
        ConfigError, match="of another model than the configuration: go on with predictor.mask_tokens=10$"
    ):
        begin(built.jepa, made.adamw(built.jepa, config["optim"]), config, said.append)
    config["predictor"]["mask_tokens"] = 10
    built = made.build(config)
    begin(built.jepa, made.adamw(built.jepa, config["optim"]), config, said.append)
    assert built.jepa.predictor.mask_token.shape == (10, 12) and "moments of the optimizer" in said[0]


def test_a_larger_grid_whose_places_are_said_to_be_new(tmp_path):
    """V-JEPA 2's cooldown at 384 pixels numbers the places of the larger grid as they come."""
    place, said = video.written(tmp_path, "vjepa2"), []
    settings = (*video.CLIPS, *video.MODELS["vjepa2"], "data.size=64", f"start.weights={place}")
    config = made.config(*settings)
    with pytest.raises(ConfigError, match=r"trained on a grid of 4 x 4, here it is 8 x 8: go on with encoder.native="):
        begin((built := made.build(config)).jepa, made.adamw(built.jepa, config["optim"]), config, said.append)
    config = made.config(*settings, "encoder.native=[8,8]", "predictor.native=[8,8]")
    begin((built := made.build(config)).jepa, made.adamw(built.jepa, config["optim"]), config, said.append)
    assert said[0] == "encoder: the weights know a grid of 4 x 4; places are those of its native"
