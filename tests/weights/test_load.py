"""A trained encoder in three lines: its features, its preprocessing, its places, and what is refused."""

import dataclasses
import shutil

import pytest
import torch
from PIL import Image
from torch import Tensor

import jepakit
from jepakit.checkpoint import load_newest_model
from jepakit.data import open_source
from jepakit.data.loader import evaluation_batches
from jepakit.errors import CheckpointError, ConfigError, DataError, UserError
from jepakit.evaluate.features import pool
from jepakit.runs import open_run
from jepakit.types import Grid, Weights
from jepakit.weights.model import Frozen, freeze
from tests.weights import made

CONFIG = made.config()


@pytest.fixture(scope="module")
def built():
    return made.trained(CONFIG)[0]


@pytest.fixture
def found(built) -> Weights:
    return made.weights(CONFIG, built)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_features_are_those_of_the_backbone_to_the_last_bit(found, built, images):
    for which, backbone in (("target", built.jepa.target_backbone), ("online", built.jepa.backbone)):
        encoder = freeze(found, "file", which)
        expected = backbone(images.unsqueeze(2))
        assert torch.equal(encoder(images), expected)
        assert torch.equal(encoder(images.unsqueeze(2)), expected)
        assert torch.equal(encoder.pooled(images), pool(expected))
    assert not torch.equal(freeze(found, "file", "online")(images), freeze(found, "file")(images))


def test_it_is_frozen_and_stays_so(found, images):
    encoder = freeze(found, "file")
    whole = torch.nn.Sequential(encoder, torch.nn.Linear(24, 2)).train()
    assert not encoder.training and not any(part.training for part in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder(images).requires_grad
    whole(images).sum().backward()
    assert encoder(images.clone().requires_grad_()).requires_grad  # gradients still reach the pixels


def test_what_it_says_of_itself(found):
    encoder = freeze(found, "runs/a")
    assert (encoder.grid, encoder.width, encoder.size) == (Grid(1, 4, 4), 24, 32)
    assert encoder.about == {"from": "runs/a", "weights": "target", "positions": "as trained", "step": 3}
    assert repr(encoder) == (
        "Frozen(target weights of runs/a, step 3: 3 x 32 x 32 pixels -> 4 x 4 tokens, 24 wide; positions as trained)"
    )


def test_load_reads_and_builds_no_more_than_the_backbone(found, monkeypatch, images):
    config = found.config | {"data": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}}
    bare = Weights({key: config[key] for key in ("data", "tokenizer", "encoder")}, found.backbones)
    monkeypatch.setattr("jepakit.weights.read", lambda path, given: bare)
    encoder = jepakit.load("somewhere.safetensors", device="cpu")
    assert isinstance(encoder, Frozen) and torch.equal(encoder(images), freeze(found, "file")(images))
    with pytest.raises(ConfigError, match="heads=4: somewhere.safetensors says that there are 3"):
        jepakit.load("somewhere.safetensors", heads=4)


def test_a_run_is_loaded_without_its_pictures(folder, tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    data = ["data=folder", f"data.root={folder}", "trainer.steps=1"]
    run = made.run(
        monkeypatch, *made.settings("data.size=32", "data.batch_size=4", "data.workers=0", *data, without="data")
    )
    shutil.rmtree(folder)
    encoder = jepakit.load(run)
    jepa, _ = load_newest_model(run, open_run(run).config)
    assert torch.equal(encoder(images), jepa.target_backbone.eval()(images.unsqueeze(2)))
    assert encoder.about["step"] == 1 and encoder.preprocess(Image.new("RGB", (9, 9))).shape == (1, 3, 32, 32)
    with pytest.raises(UserError, match=f"did you mean '{run.name}'"):
        jepakit.load(f"{run}x")


# Preprocessing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    tmp_path = tmp_path / "pictures"
    tmp_path.mkdir()
    rng = torch.Generator().manual_seed(0)
    for i, (height, width) in enumerate([(50, 70), (32, 32), (90, 40), (32, 200)]):
        pixels = torch.randint(0, 256, (height, width, 3), generator=rng, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png")
    Image.fromarray(pixels.numpy()).convert("L").save(tmp_path / "4.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels.numpy()).save(tmp_path / "5.jpg", exif=turned)
    return tmp_path


def test_the_same_pixels_as_an_evaluation(found, folder):
    encoder = freeze(found, "file")
    data = CONFIG["data"]
    source = open_source({"name": "folder", "root": str(folder)})
    (batch,) = evaluation_batches(source, data | {"batch_size": 6})
    paths = [source.path(i) for i in range(len(source))]
    tensors = [source[i][0].squeeze(1) for i in range(len(source))]
    opened = [Image.open(path) for path in paths]
    expected = batch.views[0].squeeze(2)
    for pictures in (paths, tensors, opened, [paths[0], tensors[1], *opened[2:]]):
        assert torch.equal(encoder.preprocess(pictures), expected)
    for one in (paths[2], tensors[2], opened[2], tensors[2][None]):
        assert torch.equal(encoder.preprocess(one), expected[2:3])


@pytest.mark.parametrize(
    "pictures, said",
    [
        (torch.zeros(3, 8, 8), "float32 of 3 axes"),
        (torch.zeros(8, 8, dtype=torch.uint8), "uint8 of 2 axes"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), "1 channels; the encoder reads 3"),
        (7, "not a int"),
        ([], "no picture"),
    ],
)
def test_what_is_no_picture_is_refused(found, pictures, said):
    with pytest.raises(ConfigError, match=said):
        freeze(found, "file").preprocess(pictures)


def test_files_and_pictures_that_cannot_be_read_are_named(found, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    encoder = freeze(found, "file")
    for name, said in (("broken.png", "empty file"), ("missing.png", "No such file")):
        with pytest.raises(DataError, match=f"{name}: {said}"):
            encoder.preprocess(tmp_path / name)
    with pytest.raises(DataError, match="no defined scale"):
        encoder.preprocess(Image.new("F", (8, 8)))


# Other sizes --------------------------------------------------------------------------------------------------------


def test_at_another_size_positions_are_scaled_to_the_trained_grid(found, built):
    encoder = freeze(found, "file", size=64)
    assert (encoder.size, encoder.grid) == (64, Grid(1, 8, 8))
    assert encoder.about["positions"] == "scaled to the trained 4 x 4"
    assert encoder.backbone.encoder.positions.native == (4, 4)
    assert encoder.preprocess(torch.zeros(3, 9, 9, dtype=torch.uint8)).shape == (1, 3, 64, 64)
    assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 64, 24)


def test_pictures_of_other_sizes_are_taken_as_a_loaded_size_would(found):
    """Also oblong ones; positions know the trained grid, whatever size was asked for."""
    large = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(freeze(found, "file")(large), freeze(found, "file", size=64)(large))
    assert freeze(found, "file")(large[..., :40]).shape == (1, 40, 24)


def test_a_native_grid_that_the_run_had_already_is_kept(found):
    other = dataclasses.replace(found, config=made.config("encoder.native=[2,2]"))
    encoder = freeze(other, "file")
    assert encoder.backbone.encoder.positions.native == (2, 2)
    assert encoder.about["positions"] == "scaled to the trained 2 x 2"


# Refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, near", [(60, 64), (3, 8), (-8, 8)])
def test_a_size_that_patches_do_not_fit(found, size, near):
    with pytest.raises(ConfigError, match=rf"size={size}: .*did you mean {near}\?"):
        freeze(found, "file", size=size)


def test_weights_that_are_not_there(found):
    with pytest.raises(ConfigError, match=r"unknown weights 'tarrget' \(did you mean 'target'\?\)"):
        freeze(found, "file", "tarrget")
    alone = dataclasses.replace(found, backbones={"online": found.backbones["online"]})
    with pytest.raises(CheckpointError, match="file has no target weights; there are: weights=online"):
        freeze(alone, "file")
    run = dataclasses.replace(alone, about={"format": "jepakit run"})
    assert freeze(run, "run").about["weights"] == "online"  # it has no teacher, so what learned is what answers


def test_every_key_that_does_not_fit_is_named(found):
    state = dict(found.backbones["target"])
    state["encoder.norm.wieght"] = state.pop("encoder.norm.weight")
    state["encoder.norm.bias"] = torch.zeros(5)
    wrong = dataclasses.replace(found, backbones={"target": state})
    with pytest.raises(CheckpointError) as caught:
        freeze(wrong, "file")
    assert str(caught.value) == (
        "file, target weights: the tensors are not those of the model; missing: encoder.norm.weight; "
        "left over: encoder.norm.wieght; wrong shape: encoder.norm.bias (5, not 24)"
    )


def test_integers_are_no_weights(found):
    state = found.backbones["target"] | {"encoder.norm.bias": torch.zeros(24, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match=r"encoder.norm.bias \(24 int8, not 24\)"):
        freeze(dataclasses.replace(found, backbones={"target": state}), "file")


@pytest.mark.parametrize(
    "images, said",
    [
        (torch.zeros(1, 1, 32, 32), "1 channels; the encoder reads 3"),
        (torch.zeros(1, 3, 30, 32), "cannot be cut .*preprocess makes 32 x 32"),
        (torch.zeros(3, 32, 32), "not float32 3 x 32 x 32"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "not uint8 1 x 3 x 32 x 32; see encoder.preprocess"),
    ],
)
def test_images_that_do_not_fit_are_one_line(found, images, said):
    with pytest.raises(ConfigError, match=said) as caught:
        freeze(found, "file")(images)
    assert "\n" not in str(caught.value)
