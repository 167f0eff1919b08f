"""Others' files as they are: what is read of them, and what is refused with the reason."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from jepakit.errors import CheckpointError
from jepakit.weights import read
from jepakit.weights.content import open_content
from jepakit.weights.formats import formats, recognise
from tests.weights import files


def _timm(folder: Path, **arguments) -> Path:
    """A small ViT of timm's as it is, whatever it has been asked to have."""
    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 1, "num_heads": 3}
    plain = {"class_token": False, "global_pool": "avg", "fc_norm": False, "num_classes": 0}
    made = timm.models.VisionTransformer(**{**sizes, **plain, **arguments})
    folder.mkdir(exist_ok=True)
    file = folder / "model.safetensors"
    save_file(made.state_dict(), file)
    return file


class TestTimm:
    """Vision transformers with timm's names."""

    @pytest.mark.parametrize(
        "arguments, words",
        [
            ({"class_token": True}, "a ViT with a class token; the encoder here has none"),
            ({"reg_tokens": 2}, "a ViT with register tokens"),
            ({"init_values": 1e-5}, "a ViT with layer scale"),
            ({"fc_norm": True}, "a norm after pooling in place of the last one"),
            ({"pre_norm": True}, "a norm before the blocks"),
            ({"qk_norm": True}, "norms of queries and keys"),
            ({"qkv_bias": False}, "missing: encoder.blocks.0.attn.qkv.bias"),
            ({"pos_embed": "none"}, "missing: pos_embed"),
            ({}, "its positions are learned or of another kind"),
            ({"in_chans": 1}, "it reads 1 channels, and does not say with which mean"),
            ({"img_size": (28, 56)}, "only squares of square patches are known"),
        ],
    )
    def test_other_models(self, arguments, words, tmp_path):
        file = _timm(tmp_path, **arguments)
        assert recognise(open_content(file))[1].title == "timm ViT"
        with pytest.raises(CheckpointError, match=words):
            read(file, {"heads": 3})

    @pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
    def test_single_file(self, wrapper, tmp_path):
        """A bare state of the released encoder has timm's names; a head is left out, and that is said."""
        state = files.released()[0].state_dict() | {"head.weight": torch.zeros(5, 24), "head.bias": torch.zeros(5)}
        torch.save({wrapper: state} if wrapper else state, tmp_path / "vit.pth")
        found = read(tmp_path / "vit.pth", {"heads": 3})
        assert list(found.backbones) == ["target"] and found.about["left_out"] == ["head.weight", "head.bias"]

    @pytest.mark.parametrize(
        "arguments, words",
        [
            ({"num_heads": 6}, "num_heads is 6 in its config.json; the encoder has 3"),
            ({"act_layer": "gelu_tanh"}, "asks for act_layer=gelu_tanh"),
        ],
    )
    def test_other_arguments(self, arguments, words, tmp_path):
        folder = files.exported(files.written(tmp_path), "timm")
        config = json.loads((folder / "config.json").read_text())
        config["model_args"] |= arguments
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=words):
            read(folder)


class TestHuggingFace:
    """Folders of transformers."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        """A folder that says nothing of jepakit, as someone else's does."""
        folder = files.exported(files.written(tmp_path), "hf", companion="false")
        save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
        return folder

    def test_settings(self, folder):
        found = read(folder)
        assert list(found.backbones) == ["target"]
        assert found.config["encoder"]["heads"] == 3 and found.config["data"]["size"] == 32

    @pytest.mark.parametrize(
        "changes, words",
        [
            ({"layer_norm_eps": 1e-12}, "layer_norm_eps is 1e-12 in its config.json; the encoder here has 1e-06"),
            ({"layer_norm_eps": None}, "layer_norm_eps is 1e-12"),
            ({"hidden_act": "gelu_new"}, "hidden_act is gelu_new"),
            ({"qkv_bias": False}, "qkv_bias is False"),
            ({"num_attention_heads": 5}, "width 24 cannot be split over 5 heads"),
            ({"image_size": [32, 64]}, r"its pictures are \[32, 64\] pixels; only squares"),
            ({"image_size": 64}, r"wrong shape: pos_embed \(1 x 16 x 24, not 1 x 64 x 24\)"),
        ],
    )
    def test_other_models(self, changes, words, folder):
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        with pytest.raises(CheckpointError, match=words):
            read(folder)

    @pytest.mark.parametrize(
        "name, words",
        [
            (
                "encoder.layer.0.attention.attention.query.bias",
                "missing: .*qkv.bias; left over: .*key",
            ),
            ("encoder.layer.0.attention.attention.value.bias", "missing: .*attention.value.bias"),
            ("layernorm.weight", "missing: norm.weight"),
        ],
    )
    def test_missing(self, name, words, folder):
        state = load_file(folder / "model.safetensors")
        del state[name]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=words):
            read(folder)


def test_each_file_is_of_one_format(tmp_path):
    """No format takes another's file for its own: the order in which they are asked does not matter."""
    source = files.written(tmp_path)
    samples = [
        source,
        files.meta(tmp_path),
        *(files.exported(source, to, f"as_{to}") for to in files.EVERYTHING),
    ]
    for sample in samples:
        content = open_content(sample)
        assert sum(form.recognise(content) for form in formats().values()) == 1, sample
