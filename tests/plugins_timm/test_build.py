"""Whole models from a configuration: VICReg's figure, a teacher with batch norm, tokens under I-JEPA's predictor."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from jepakit import plugins
from jepakit.build import build, build_backbone
from jepakit.errors import ConfigError
from jepakit.evaluate.features import Reading, extract, tokens
from jepakit.options import DataOptions
from jepakit.types import Grid
from jepakit.weights import fill
from jepakit.weights.model import Frozen
from tests.evaluate.fakes import DATA, Stripes

BASE: dict[str, Any] = {
    "seed": 0,
    "distance": "l2",
    "data": {"name": "world", **asdict(DataOptions(batch_size=4, size=64, workers=0))},
    "tokenizer": {"name": "whole"},
    "masker": {"name": "pair"},
    "encoder": {"name": "timm", "model": "test_resnet", "expander": [12, 8]},
    "predictor": {"name": "identity"},
    "anti_collapse": {"answers_itself": {"name": "answers_itself"}},
}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """``config(masker={"name": "mean"})``: a small VICReg with nodes replaced."""
    monkeypatch.setenv(plugins.FILES, str(Path(__file__).parent / "strategy.py"))
    plugins.forget()
    return lambda **changes: copy.deepcopy(BASE) | changes


def views(count: int, batch: int = 4, side: int = 64) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, 1, side, side, generator=rng) for _ in range(count)]


def counted(module: torch.nn.Module) -> set[int]:
    """How many batches the batch norms have seen."""
    return {int(value) for name, value in module.named_buffers() if name.endswith("num_batches_tracked")}


def test_views_of_a_run_that_knew_fewer_settings(config):
    assert build(config(views={"both": {"count": 2, "size": None}})).figures[""].views == 2


@pytest.mark.parametrize(
    ("masker", "count"), [({"name": "pair"}, 2), ({"name": "mean", "views": 2, "local_views": 1}, 3)]
)
def test_vicreg_and_lejepa(config, masker, count):
    """The rehearsal leaves no trace in batch norms; a few steps move every weight, and the embedding is guarded."""
    built = build(config(masker=masker))
    jepa, figure = built.jepa.train(), built.figures[""]
    assert figure.views == count and figure.grid == Grid(1, 1, 1) and counted(jepa) == {0}
    masks = figure.masker(figure.grid, 4, torch.Generator())
    before = [p.detach().clone() for p in jepa.parameters()]
    optimizer = torch.optim.Adam(jepa.parameters(), lr=1e-3)
    for _ in range(2):
        losses = jepa(views(count), masks)
        assert losses.trace[0][0].shape == (4, 1, 8) and torch.isfinite(losses.total)
        assert list(losses.parts) == ["distance", "variance", "covariance"]
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, jepa.parameters(), strict=True))
    assert counted(jepa) == {2 * count}


def test_both_levels_reach_predictor_and_distance(config):
    encoder = BASE["encoder"] | {"gives": "both", "expander": [8], "token_expander": [8]}
    built = build(config(encoder=encoder))
    (seen, guess, truth), _ = built.jepa(views(2), built.masker(built.grid, 4, torch.Generator())).trace
    assert [level.shape for level in seen] == [(4, 4, 8), (4, 1, 8)]
    assert [level.shape for level in guess] == [level.shape for level in truth] == [(4, 1, 4, 8), (4, 1, 1, 8)]


def test_a_teacher_has_statistics_of_its_own(config):
    """It normalises by its own batches, as in BYOL's released code; nothing of them is averaged with the student's."""
    built = build(config(anti_collapse={"ema": {"name": "ema"}}))
    jepa = built.jepa.train()
    jepa(views(2), built.masker(built.grid, 4, torch.Generator())).total.backward()
    jepa.after_step(0)
    assert counted(jepa.target_backbone) == counted(jepa.backbone) == {2}
    assert jepa.target_backbone.represent(views(1)[0]).shape == (4, 1, 96)


def test_tokens_under_the_predictor_of_ijepa(config):
    """From all tokens of one view to all of the other: what can be asked where nothing can be hidden."""
    parts = {
        "tokenizer": {"name": "whole", "stride": 16},
        "encoder": {"name": "timm", "model": "test_vit", "gives": "tokens", "size": 64},
        "predictor": {"name": "vit_predictor", "width": 8, "depth": 1, "heads": 2},
        "anti_collapse": {"ema": {"name": "ema"}},
    }
    built = build(config(**parts))
    losses = built.jepa(views(2), built.masker(built.grid, 4, torch.Generator()))
    assert built.grid == Grid(1, 4, 4) and losses.trace[0][1].shape == (4, 1, 16, 64)
    losses.total.backward()
    line = "encoder 'timm' does not go with masker 'random', .* whole pictures and cannot be shown 6 of 16 tokens"
    with pytest.raises(ConfigError, match=line):
        build(config(**parts, masker={"name": "random"}))


def test_parts_that_do_not_fit_are_refused_before_training(config):
    for line, changes in {
        "tokenizer 'whole': a picture of 64 x 64": {"tokenizer": {"name": "whole", "stride": 24}},
        "encoder 'timm': timm has no model 'resnet51'": {"encoder": {"name": "timm", "model": "resnet51"}},
        "encoder 'timm' does not go with .* test_resnet eats the pixels": {"tokenizer": {"name": "patch", "patch": 16}},
        "predictor 'identity' does not go with .* the masker must ask": {
            "masker": {"name": "random"},
            "tokenizer": {"name": "patch", "patch": 16},
            "encoder": {"name": "vit", "width": 16, "depth": 1, "heads": 2},
        },
        "encoder 'timm' does not go with .* Expected more than 1 value": {"data": BASE["data"] | {"batch_size": 1}},
    }.items():
        with pytest.raises(ConfigError, match=line):
            build(config(**changes))


def test_evaluations_read_what_comes_before_the_expander(config):
    backbone, grid = build_backbone(config(data=BASE["data"] | DATA))
    source, reading = Stripes(24), Reading(DATA)
    found = extract(backbone, source, reading)
    pixels = torch.stack([(source[i][0] / 255 - 0.5) / 0.25 for i in range(24)])
    with torch.no_grad():
        expected = backbone.eval().represent(pixels)
    assert found.x.shape == (24, 96) and backbone.width == 8 and backbone.representation_width == 96
    torch.testing.assert_close(found.x, expected[:, 0])
    assert tokens(backbone, source, reading).x.shape == (24, 1, 96)


def test_a_skeleton_needs_no_weights(config):
    """What is built to be filled from a checkpoint has shapes and no content, and does not ask where it began."""
    node = {"name": "timm", "model": "test_vit", "size": 64, "drop_path": 0.1, "expander": [8]}
    skeleton, grid = fill.skeleton(config(encoder=node | {"pretrained": "gone"}))
    assert all(p.is_meta for p in skeleton.parameters()) and grid == Grid(1, 1, 1)
    trained = build_backbone(config(encoder=node))[0]
    filled = fill.filled(config(encoder=node | {"pretrained": "gone"}), trained.state_dict(), "a checkpoint")
    frozen = Frozen(filled, BASE["data"], {})
    pixels = views(1)[0][:, :, 0]
    assert frozen.width == 64 and torch.equal(frozen(pixels), trained.eval().represent(pixels.unsqueeze(2)))


def test_weights_that_are_at_hand(config, tmp_path):
    """All of timm's weights but the classifier; positions of another size by timm's own rule; the expander is new."""
    torch.manual_seed(1)
    theirs = timm.create_model("test_vit", num_classes=10)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    node = {"name": "timm", "model": "test_vit", "size": 64, "pretrained": str(tmp_path), "head": 5, "expander": [8]}
    ours = build_backbone(config(encoder=node))[0].encoder.body.model
    resized = timm.create_model("test_vit", num_classes=10, img_size=64)
    resized.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(theirs.state_dict(), resized))
    own, other = ours.state_dict(), resized.state_dict()
    assert own["head.weight"].shape == (5, 64) and not torch.equal(own["pos_embed"][:, :5], theirs.pos_embed[:, :5])
    assert all(torch.equal(own[name], other[name]) for name in own if not name.startswith("head."))
