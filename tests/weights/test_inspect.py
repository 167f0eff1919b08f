"""``jepakit inspect``: the family, the parts with their shapes, what to do with it, what a recipe has otherwise."""

import pytest
import torch

from jepakit.cli import main
from tests.weights import files, made, video

TITLES = {"hf": "Hugging Face IJepa", "timm": "timm ViT", "safetensors": "jepakit file"}


def said(capsys, *words: object) -> list[str]:
    """The lines that ``inspect`` prints, with the spaces between columns as one."""
    assert main(["inspect", *map(str, words)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_released_checkpoint(tmp_path, capsys):
    file = files.meta(tmp_path)
    lines = said(capsys, file, "heads=3", "predictor_heads=2")
    encoder, predictor, _ = files.released()
    numbers = [sum(tensor.numel() for tensor in part.state_dict().values()) for part in (encoder, predictor)]
    assert lines[0] == f"{file}: Meta I-JEPA"
    assert f"target encoder 29 {numbers[0]:,} float32" in lines and f"encoder 29 {numbers[0]:,} float32" in lines
    assert f"predictor 32 {numbers[1]:,} float32" in lines
    assert any(line.startswith("optimiser 177 ") for line in lines)
    assert "blocks.*.attn.qkv.weight 72 x 24 (2 of them)" in lines and "patch_embed.proj.weight 24 x 3 x 7 x 7" in lines
    assert "encoder: as the target encoder" in lines and "exp_avg of 59 parameters" in lines
    assert {"epoch: 7", "loss: 0.25", "scaler/scale: 1024.0"} <= {*lines}
    assert any(line.startswith("evaluate: the target encoder (weights=target)") for line in lines)
    assert "import: yes: vit encoder, width 24, depth 2, heads 3, pictures of 28 x 28" in lines


def test_what_is_missing_to_import(tmp_path, capsys):
    assert any(line.endswith("no shape shows the heads: add heads=N") for line in said(capsys, files.meta(tmp_path)))


@pytest.mark.parametrize("flag", ["--verbose", "all=true"])
def test_every_tensor(flag, tmp_path, capsys):
    lines = said(capsys, files.meta(tmp_path), flag)
    assert "blocks.1.attn.qkv.weight 72 x 24" in lines and "state/1/exp_avg 24 x 3 x 7 x 7" in lines
    assert "state/1/step a number" in lines


def test_only_what_learns(tmp_path, capsys):
    file = files.meta(tmp_path, target_encoder=None, opt=None)
    assert "evaluate: the encoder, the only one there is (weights=online)" in said(capsys, file)


def test_released_video(tmp_path, capsys):
    lines = said(capsys, video.checkpoint(tmp_path), "heads=2", "predictor_heads=1")
    assert lines[0].endswith(": Meta V-JEPA") and "mask_tokens.* 1 x 1 x 12 (2 of them)" in lines
    assert "import: yes: vit encoder, width 24, depth 2, heads 2, clips of 4 x 32 x 32" in lines


def test_a_recipe_of_clips(tmp_path, capsys):
    file = video.checkpoint(tmp_path, tables=False, tokens=6)
    assert main(["inspect", str(file), "heads=2", "predictor_heads=1", "recipe=vjepa2_vitl16"]) == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "encoder.width: 24 in the file, 1024 in the recipe" in lines and "encoder.positions" not in str(lines)
    assert "tokenizer.patch: 8 in the file, 16 in the recipe" in lines and "tokenizer.tubelet" not in str(lines)


def test_part_of_a_video_model(tmp_path, capsys):
    state = {"module.backbone.patch_embed.proj.weight": torch.zeros(24, 3, 2, 4, 4)}
    torch.save({"encoder": state, "target_encoder": state, "epoch": 3}, tmp_path / "video.pth.tar")
    lines = said(capsys, tmp_path / "video.pth.tar")
    assert lines[0].endswith(": Meta V-JEPA 2") and "patch_embed.proj.weight 24 x 3 x 2 x 4 x 4" in lines
    assert "import: no: missing: norm.weight" in lines


@pytest.mark.parametrize("to, title", TITLES.items())
def test_families(to, title, tmp_path, capsys):
    place = files.exported(files.written(tmp_path), to)
    capsys.readouterr()
    lines = said(capsys, place)
    assert lines[0] == f"{place}: {title}" and any("target encoder (weights=target)" in line for line in lines)
    beside = "" if to == "safetensors" else ", with jepakit.safetensors"
    assert f"import: yes{beside}: vit encoder, width 24, depth 1, heads 3, pictures of 32 x 32" in lines


def test_an_encoder_of_which_nothing_is_said(tmp_path, capsys):
    torch.save(files.released()[0].state_dict(), tmp_path / "vit.pth")
    lines = said(capsys, tmp_path / "vit.pth", "heads=3")
    assert any(line.endswith("the file does not say which one it was") for line in lines)


class TestRecipe:
    """Against a recipe's model."""

    @pytest.fixture
    def recipe(self, tmp_path):
        """The small model as a recipe; what is left to say is not looked at."""
        settings = [each.partition("=") for each in made.settings()]
        chosen = {k: v for k, _, v in settings if k in ("data", "tokenizer", "masker", "encoder", "predictor")}
        groups = [f"  - override /{k}: {v}" for k, v in (chosen | {"anti_collapse": "[ema]"}).items()]
        file = tmp_path / "small.yaml"
        inner = "tokenizer: {patch: 8}\nencoder: {width: 24, depth: DEPTH, heads: HEADS}\n"
        inner += "predictor: {width: 16, depth: 1, heads: 2}\ndata: {size: 32}\n"
        text = "\n".join(["defaults:", *groups, inner])

        def write(depth: int = 1, heads: int = 3) -> str:
            file.write_text(text.replace("DEPTH", str(depth)).replace("HEADS", str(heads)))
            return f"recipe={file}"

        return write

    def test_same(self, recipe, tmp_path, capsys):
        assert said(capsys, files.written(tmp_path), recipe())[-1].endswith("small.yaml: the same model")

    def test_trained_in_another_way(self, recipe, tmp_path, capsys):
        found = files.model()
        config = {**found.config, "encoder": {**found.config["encoder"], "drop_path": 0.1, "checkpoint_blocks": True}}
        file = files.written(tmp_path, type(found)(config, found.backbones, found.predictor))
        assert said(capsys, file, recipe())[-1].endswith("small.yaml: the same model")

    def test_other(self, recipe, tmp_path, capsys):
        file = files.written(tmp_path)
        assert main(["inspect", str(file), recipe(depth=3, heads=4)]) == 1
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert "encoder.depth: 1 in the file, 3 in the recipe" in lines
        assert "encoder.heads: 3 in the file, 4 in the recipe" in lines
        assert "backbone.encoder.blocks.*.norm1.bias none in the file, 24 in the recipe (2 of them)" in lines

    def test_every_difference(self, recipe, tmp_path, capsys):
        assert main(["inspect", str(files.written(tmp_path)), recipe(depth=2), "--verbose"]) == 1
        assert "backbone.encoder.blocks.1.norm1.bias" in capsys.readouterr().out

    def test_no_such_recipe(self, tmp_path, capsys):
        assert main(["inspect", str(files.written(tmp_path)), "recipe=demoo"]) == 2
        found = capsys.readouterr()
        assert "no recipe 'demoo' (did you mean 'demo'?)" in found.err and not found.out

    def test_no_model(self, recipe, tmp_path, capsys):
        assert main(["inspect", str(files.meta(tmp_path)), recipe()]) == 1
        assert "the file cannot be read as a model" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, answer",
    [
        ([], "inspect takes one file or folder with weights"),
        (["a", "b"], "inspect takes one file or folder with weights, not 2: a, b"),
        (["model.safetensors", "hedas=3"], "inspect knows no 'hedas' (did you mean 'heads'?)"),
        (["model.safetensors", "all=3"], "all=3: it is true or false"),
        (["model.safetensors", "--recipe"], "--recipe needs a value: recipe=VALUE"),
        (["modl.safetensors"], "modl.safetensors: there is no such file (did you mean 'model.safetensors'?)"),
    ],
)
def test_refused(words, answer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files.written(tmp_path)
    assert main(["inspect", *words]) == 2
    found = capsys.readouterr()
    assert answer in found.err and not found.out and found.err.count("\n") == 1
