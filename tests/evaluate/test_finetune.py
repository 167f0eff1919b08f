"""Fine-tuning: what learns, at which rates, from which samples; and that the backbone that is given does not."""

import copy
import dataclasses
import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.build import build_backbone
from jepakit.catalog import collect
from jepakit.data import BadSample
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import finetune as module
from jepakit.evaluate import protocol
from jepakit.evaluate.augment import AugmentedView, mix
from jepakit.evaluate.controls import frame_difference, mean_frame
from jepakit.evaluate.data import Part
from jepakit.evaluate.features import Reading, extract, raw_pixels
from jepakit.evaluate.finetune import Pixels, Settings, divided, finetune, known_labels, pixels
from jepakit.evaluate.frozen import Ridge, score_ridge
from jepakit.evaluate.layerdecay import drop_paths, groups, layers
from jepakit.evaluate.tuning import Classifier, Task, factor, right, steps, tune
from jepakit.jepa import Backbone
from jepakit.seeds import generator

from .fakes import DATA, Blocks, Stripes

READING = Reading(DATA)
RIDGE = Ridge("last", (1.0, 0.01, 1e-4), 0.2)
SETTINGS = Settings(
    share=None,
    per_class=None,
    epochs=4,
    warmup=1.0,
    batch_size=16,
    accumulate=1,
    lrs=(0.02,),
    weight_decays=(0.05,),
    layer_decay=1.0,
    norm="none",
    drop_path=0.0,
    label_smoothing=0.1,
    crop_scale=(0.5, 1.0),
    crop_ratio=(0.75, 1.33),
    flip=False,
    augment_ops=0,
    augment_magnitude=9,
    mixup=0.0,
    cutmix=0.0,
    held_out=0.2,
    seed=0,
)


def settings(**changed: object) -> Settings:
    return dataclasses.replace(SETTINGS, **changed)


def part(count: int = 96, **how: object) -> Part:
    return Part(Stripes(count, **how), torch.arange(count), "made")


def vit(encoder: dict | None = None, **own: object) -> Backbone:
    """A backbone as ``build`` makes it, for pictures of 8 pixels."""
    node = {"name": "vit", "width": 16, "depth": 3, "heads": 2} | own if encoder is None else encoder
    tokenizer = {"name": "patch", "patch": 4} if encoder is None else {"name": "whole"}
    return build_backbone({"data": DATA, "seed": 0, "encoder": node, "tokenizer": tokenizer})[0]


def timm(model: str, size: int = 32, **more: object) -> Backbone:
    node = {"name": "timm", "model": model, "gives": "pooled", "size": size if "vit" in model else None} | more
    tokenizer = {"name": "whole"}
    return build_backbone({"data": DATA | {"size": 32}, "seed": 0, "encoder": node, "tokenizer": tokenizer})[0]


# What is learned


def test_what_can_be_learned_is_learned_and_noise_is_not():
    found = finetune(Blocks(), part(), part(60, seed=1), 3, SETTINGS, READING)
    assert found["score"] > 0.9 and found["low"] < found["score"] <= found["high"]
    assert (found["fit"], found["test"], found["steps"], found["used"]) == (96, 60, 24, [32] * 3)
    assert (found["lr"], found["weight_decay"], found["tried"]) == (0.02, 0.05, [])

    class Lying(Stripes):
        def __getitem__(self, index):
            return super().__getitem__(index)[0], {"class": int(torch.randint(3, (1,), generator=generator(index)))}

    lied = finetune(Blocks(), part(), Part(Lying(90, seed=1), torch.arange(90), ""), 3, SETTINGS, READING)
    assert lied["score"] < 0.5


def test_it_beats_the_same_features_frozen():
    """Rows and columns are equally bright, and this backbone sees no more than that of a patch."""

    class Blind(Blocks):
        def __init__(self):
            super().__init__()
            self.weight.data[:] = self.weight.data[:, :1]

    fit, test = part(), part(60, seed=1)
    frozen = score_ridge(*(extract(Blind(), each.source, READING, each.rows) for each in (fit, test)), 3, RIDGE)
    found = finetune(Blind(), fit, test, 3, settings(lrs=(0.05,)), READING)
    assert found["low"] > frozen["high"] and frozen["score"] < 0.75


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_the_head_has_the_norm_that_is_asked_for(norm):
    model = Classifier(Blocks(), Task(part(), 3, settings(norm=norm), READING))
    kinds = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
    assert isinstance(model.head[0], kinds[norm])
    assert finetune(Blocks(), part(), part(30, seed=1), 3, settings(norm=norm), READING)["score"] > 0.8


def test_the_best_of_a_grid_is_chosen_on_fit_samples_that_were_held_out():
    grid = settings(lrs=(1e-6, 0.02), weight_decays=(0.0, 0.05), epochs=3)
    found = finetune(Blocks(), part(), part(60, seed=1), 3, grid, READING)
    assert found["lr"] == 0.02 and [each["lr"] for each in found["tried"]] == [1e-6, 1e-6, 0.02, 0.02]
    best = max(found["tried"], key=lambda each: each["held_out"])
    assert (found["lr"], found["weight_decay"]) == (best["lr"], best["weight_decay"])


def test_what_chooses_is_not_learned_from_and_is_no_test_sample(monkeypatch):
    learned, asked = [], []

    def tuning(backbone, task, lr, weight_decay):
        learned.append(task.part)
        return tune(backbone, task, lr, weight_decay)

    def asking(model, some, reading):
        asked.append(some)
        return right(model, some, reading)

    monkeypatch.setattr(module, "tune", tuning)
    monkeypatch.setattr(module, "right", asking)
    fit, test = part(), part(30, seed=1)
    finetune(Blocks(), fit, test, 3, settings(lrs=(0.01, 0.02), epochs=1), READING)
    assert asked[2] is test and all(each.source is fit.source for each in (*learned, *asked[:2]))
    for tried, held in zip(learned[:2], asked[:2], strict=True):
        assert sorted([*tried.rows.tolist(), *held.rows.tolist()]) == fit.rows.tolist() and len(held.rows) == 18
    assert torch.equal(learned[2].rows, fit.rows)


def test_of_each_class_a_share_is_held_out_but_never_its_only_sample():
    y = torch.tensor([0] * 10 + [1] * 5 + [2])
    learned, held = divided(y, 0.2, 0)
    assert y[learned].bincount().tolist() == [8, 4, 1] and sorted([*learned.tolist(), *held.tolist()]) == list(
        range(16)
    )


def test_a_share_of_the_labels():
    found = finetune(Blocks(), part(), part(30, seed=1), 3, settings(share=0.25), READING)
    assert found["used"] == [8] * 3 and found["fit"] == 24
    few = settings(per_class=1, lrs=(0.02, 0.01), epochs=1)
    found = finetune(Blocks(), part(), part(30, seed=1), 3, few, READING)
    assert found["used"] == [1] * 3 and found["lr"] == 0.02
    assert found["said"] == [
        "no class has a sample to hold out: learning rate and weight decay are the first of the grid"
    ]


def test_raw_pixels_learn_in_the_same_way():
    assert pixels(part(), part(60, seed=1), 3, settings(drop_path=0.3), READING)["score"] > 0.9
    source, reading = Stripes(4, size=32), Reading(DATA | {"size": 32})
    batch = torch.stack([source[i][0] for i in range(4)]) / 255
    found = Pixels(768)((batch - 0.5) / 0.25)
    torch.testing.assert_close(found[:, 0] * 0.25 + 0.5, raw_pixels(source, reading).x)
    clip = torch.rand(2, 3, 5, 32, 32)
    for change, frames in ((None, 2), (mean_frame, 1), (frame_difference, 2)):
        assert Pixels(0, change)(clip).shape == (2, 1, frames * 768)


def test_a_clip_is_pooled_over_all_its_tokens_and_frames_alone_where_the_encoder_knows_only_those():
    class Clips(Stripes):
        def __getitem__(self, index):
            picture, labels = super().__getitem__(index)
            return picture.repeat(1, 4, 1, 1), labels

    parts = [Part(Clips(count, seed=seed), torch.arange(count), "") for count, seed in ((48, 0), (24, 1))]
    assert pixels(*parts, 3, settings(epochs=1), READING, mean_frame)["test"] == 24
    for alone in (False, True):
        found = finetune(Blocks(), *parts, 3, settings(lrs=(0.05,)), READING._replace(alone=alone))
        assert found["score"] > 0.8


# Rates


def test_every_parameter_of_a_vit_has_the_rate_of_the_formula():
    backbone, head = vit(depth=3), nn.Linear(16, 3)
    rates = {id(p): each for each in groups(backbone, head, 0.1, 0.05, 0.75) for p in each["params"]}
    for name, p in backbone.named_parameters():
        words = name.split(".")
        layer = 0 if words[0] == "tokenizer" else int(words[2]) + 1 if words[1] == "blocks" else 4
        assert rates[id(p)]["lr"] == pytest.approx(0.1 * 0.75 ** (4 - layer)) and rates[id(p)]["layer"] == layer
        assert rates[id(p)]["weight_decay"] == (0.05 if p.ndim > 1 else 0.0)
    assert rates[id(head.weight)]["lr"] == 0.1 and rates[id(head.bias)]["weight_decay"] == 0
    assert len(rates) == len([*backbone.parameters(), *head.parameters()])


def test_timms_models_say_what_their_layers_are():
    small = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    found = layers(timm("test_vit", model_args=small, expander=(8,)))
    assert found.top == 3
    for name, layer in found.of.items():
        words = name.removeprefix("encoder.body.model.").split(".")
        if name.startswith("encoder.expanders"):
            assert layer == 3
        elif words[0] in ("cls_token", "pos_embed", "patch_embed"):
            assert layer == 0
        else:
            assert layer == (int(words[1]) + 1 if words[0] == "blocks" else 2)
    found = layers(timm("test_resnet"))
    assert found.top == 5 and found.of["encoder.body.model.bn1.weight"] == 0
    assert found.of["encoder.body.model.layer3.0.conv2.weight"] == 3


def test_positions_of_timms_models_have_no_weight_decay():
    backbone = timm("test_vit", model_args={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2})
    (group,) = (
        each
        for each in groups(backbone, nn.Linear(24, 3), 1.0, 0.1, 0.5)
        if any(p is backbone.encoder.body.model.pos_embed for p in each["params"])
    )
    assert group["weight_decay"] == 0 and group["lr"] == 0.25


def test_without_blocks_there_is_one_rate_and_it_is_said():
    found = finetune(Blocks(), part(24), part(12, seed=1), 3, settings(layer_decay=0.75, epochs=1), READING)
    assert found["rates"] == 1
    assert found["said"] == [
        "layer_decay=0.75 is not used: no blocks were found in the encoder, all of it has one rate"
    ]
    found = finetune(vit(), part(24), part(12, seed=1), 3, settings(layer_decay=0.75, epochs=1), READING)
    assert found["rates"] == 5 and found["said"] == []


def test_paths_are_dropped_with_depth_or_refused():
    for backbone in (vit(depth=3), timm("test_vit", model_args={"embed_dim": 24, "depth": 3, "num_heads": 2})):
        drop_paths(backbone, 0.3)
        found = [m.drop_prob for name, m in backbone.named_modules() if "drop_path" in name.rpartition(".")[2]]
        assert sorted(set(found)) == pytest.approx([0.0, 0.15, 0.3])
        drop_paths(backbone, 0.0)
        assert {m.drop_prob for n, m in backbone.named_modules() if "drop_path" in n.rpartition(".")[2]} == {0.0}
    with pytest.raises(ConfigError, match="drop_path=0.3: this encoder has no paths that could be dropped"):
        finetune(Blocks(), part(24), part(12, seed=1), 3, settings(drop_path=0.3), READING)


def test_rates_rise_and_fall():
    rates = [factor(step, 10, 0.3) for step in range(10)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and rates == sorted(rates[:3]) + sorted(rates[3:])[::-1]
    assert 0 < rates[-1] < 0.1 and factor(0, 1, 0.1) > 0


# Samples


def test_every_sample_is_seen_once_an_epoch_in_steps_of_a_size():
    task = Task(Part(Stripes(), torch.arange(100, 167), ""), 3, settings(accumulate=2), READING)
    taken = list(steps(task))
    assert len(taken) == task.steps == 4 * 3
    for first in range(0, 12, 3):
        epoch = taken[first : first + 3]
        assert sorted(torch.cat([rows for step in epoch for rows in step]).tolist()) == list(range(100, 167))
        assert [sum(map(len, step)) for step in epoch] == [23, 22, 22] and all(
            len(rows) <= 16 for s in epoch for rows in s
        )
    assert not torch.equal(taken[0][0], taken[3][0])


def test_a_step_of_several_batches_is_a_step_of_one():
    class Exact(Blocks):
        def __init__(self):
            super().__init__()
            self.drop.p = 0.0

    found = [
        tune(Exact(), Task(part(64), 3, settings(batch_size=size, accumulate=32 // size, epochs=2), READING), 0.01, 0.0)
        for size in (32, 8)
    ]
    one, several = (each.model.state_dict() for each in found)
    for name in one:
        torch.testing.assert_close(one[name], several[name], rtol=1e-4, atol=1e-5)


def test_a_sample_that_cannot_be_read_is_left_out_and_named():
    fit = part(60, bad=(3, 7))
    assert known_labels(fit, READING).index.tolist() == [i for i in range(60) if i not in (3, 7)]
    found = finetune(Blocks(), fit, part(30, seed=1, bad=(2,)), 3, settings(epochs=2), READING)
    assert found["fit"] == 58 and found["test"] == 29
    assert found["skipped"] == {
        "fit": ["stripes 0/3: made so", "stripes 0/7: made so"],
        "test": ["stripes 1/2: made so"],
    }


def test_what_breaks_while_learning_is_not_replaced_by_a_sample_that_may_be_tested_on():
    class Numbered(Stripes):
        def __getitem__(self, index):
            return torch.full((3, 1, 8, 8), index, dtype=torch.uint8), {"class": index % 3}

        def sample(self, index, rng):
            if index == 4:
                raise BadSample(self.describe(index), "half a file")
            return self[index]

    class Watching(Blocks):
        seen: ClassVar[list[int]] = []

        def forward(self, pixels, keep=None):
            self.seen.extend(((pixels[:, 0, 0, 0, 0] * 0.25 + 0.5) * 255).round().int().tolist())
            return super().forward(pixels)

    even = torch.arange(0, 40, 2)
    task = Task(Part(Numbered(40), even, ""), 3, settings(epochs=1, batch_size=20), READING)
    assert tune(Watching(), task, 0.01, 0.0).skipped == ["stripes 0/4: half a file"]
    assert sorted(Watching.seen) == [index for index in even.tolist() if index != 4]


# Augmentation


def test_views_depend_on_seed_epoch_and_sample_alone():
    view = AugmentedView(8, (0.5, 1.0), (0.75, 1.33), True, 2, 20)
    picture = torch.randint(0, 255, (3, 2, 12, 10), dtype=torch.uint8)
    before = torch.random.get_rng_state()
    one, two, other = (view.take(picture, generator(key)) for key in ("a", "a", "b"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one[0], two[0]) and one[1] == two[1] and not torch.equal(one[0], other[0])
    assert one[0].shape == (3, 2, 8, 8) and view.fit(one[0]) is one[0]


def test_frames_of_a_clip_are_changed_alike():
    still = torch.randint(0, 255, (3, 1, 8, 8), dtype=torch.uint8).expand(-1, 4, -1, -1)
    for seed in range(10):
        piece, _ = AugmentedView(8, (0.5, 1.0), (1.0, 1.0), False, 2, 9).take(still, generator(seed))
        assert all(torch.equal(piece[:, 0], piece[:, frame]) for frame in range(4))


def test_mixtures_add_up():
    x, y = torch.rand(6, 3, 2, 8, 8), torch.arange(6) % 3
    same, hard = mix(x, y, 3, 0.0, 0.0, generator("x"))
    assert same is x and torch.equal(hard, F.one_hot(y, 3).float())
    before = torch.random.get_rng_state()
    for alphas in ((0.8, 0.0), (0.0, 1.0), (0.8, 1.0)):
        mixed, target = mix(x, y, 3, *alphas, generator("x", *map(str, alphas)))
        torch.testing.assert_close(target.sum(1), torch.ones(6))
        share = target[0, 0]  # samples 0 and 5, of classes 0 and 2
        assert 0 < share < 1 and mixed.shape == x.shape
        if not alphas[1]:
            torch.testing.assert_close(mixed[0], share * x[0] + (1 - share) * x[5])
        elif not alphas[0]:
            own = (mixed[0] == x[0]).all(0)
            assert own.float().mean() == pytest.approx(float(share)) and torch.equal(own[0], own[1])
            assert torch.equal(mixed[0][:, ~own], x[5][:, ~own])
    assert torch.equal(before, torch.random.get_rng_state())


# No trace


def _everything(backbone: nn.Module) -> list:
    state = [value.clone() for value in backbone.state_dict().values()]
    grads = [None if p.grad is None else p.grad.clone() for p in backbone.parameters()]
    modes = [(m.training, tuple(p.requires_grad for p in m.parameters())) for m in backbone.modules()]
    numbers = (torch.random.get_rng_state(), torch.from_numpy(np.random.get_state()[1].astype(np.int64)))
    return [*state, *numbers, *grads, modes, torch.is_grad_enabled()]


def _same(one: list, two: list) -> bool:
    pairs = zip(one, two, strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for a, b in pairs)


@pytest.fixture
def pythons_random(monkeypatch):
    """Nobody may draw from Python's own generator. Its state is no sign of that here: checks of types draw from it."""

    def refuse(*_: object) -> None:
        raise AssertionError("drawn from Python's random numbers")

    for name in (
        "random",
        "seed",
        "randint",
        "randrange",
        "uniform",
        "choice",
        "choices",
        "shuffle",
        "sample",
        "gauss",
    ):
        monkeypatch.setattr(random, name, refuse)


def test_nothing_is_drawn_from_pythons_random_numbers(pythons_random):
    every = settings(mixup=0.8, cutmix=1.0, augment_ops=2, flip=True, epochs=1)
    finetune(vit(), part(24), part(12, seed=1), 3, every, READING)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_backbone_and_all_random_state_are_left_as_they_were(workers):
    backbone = vit(drop_path=0.1).train()
    backbone(torch.rand(2, 3, 1, 8, 8)).sum().backward()
    backbone.encoder.blocks[0].eval()
    before = _everything(backbone)
    every = settings(
        drop_path=0.2, mixup=0.8, cutmix=1.0, augment_ops=2, flip=True, epochs=1, norm="batch", accumulate=2
    )
    reading = Reading(DATA | {"workers": workers})
    found = finetune(backbone, part(32), part(12, seed=1), 3, every, reading)
    assert _same(before, _everything(backbone))
    assert finetune(backbone, part(32), part(12, seed=1), 3, every, reading) == found


def test_a_training_does_not_notice():
    def train(disturbed: bool) -> list[float]:
        torch.manual_seed(0)
        model, losses = Blocks().train(), []
        optimizer = torch.optim.AdamW(model.parameters())
        for step in range(4):
            loss = model(torch.rand(4, 3, 1, 8, 8)).square().mean()
            losses.append(loss.item())
            loss.backward()
            if disturbed and step == 1:
                finetune(model, part(24), part(12, seed=1), 3, settings(epochs=1), READING)
            optimizer.step()
            optimizer.zero_grad()
        return losses

    assert train(True) == train(False)


def test_half_the_bits_learn_as_well():
    found = finetune(vit(), part(48), part(24, seed=1), 3, settings(lrs=(0.005,)), READING._replace(precision="bf16"))
    assert found["score"] > 0.8


def test_a_teacher_that_does_not_learn_has_a_copy_that_does():
    teacher = copy.deepcopy(Blocks()).requires_grad_(False)
    with torch.no_grad():
        tuned = tune(teacher, Task(part(24), 3, settings(epochs=1), READING), 0.02, 0.0)
    assert not teacher.weight.requires_grad and not torch.equal(tuned.model.backbone.weight, teacher.weight)
    told, _ = right(tuned.model, part(12, seed=1), READING)
    assert told.shape == (12,)


def test_ctrl_c_ends_it_and_leaves_no_trace():
    class Stopped(Stripes):
        calls = 0

        def __getitem__(self, index):
            Stopped.calls += 1
            if Stopped.calls > 50:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    backbone = Blocks().train()
    before = _everything(backbone)
    with pytest.raises(KeyboardInterrupt):
        finetune(backbone, Part(Stopped(40), torch.arange(40), ""), part(12, seed=1), 3, SETTINGS, READING)
    assert _same(before, _everything(backbone))


# The files


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("finetune", {"epochs": 50, "lrs": (1e-4,), "weight_decays": (0.04,), "layer_decay": 0.75, "mixup": 0.8}),
        ("finetune", {"cutmix": 1.0, "drop_path": 0.25, "share": None}),
        ("finetune_lowshot", {"epochs": 50, "lrs": (3e-5,), "weight_decays": (0.05,), "layer_decay": 0.75}),
        ("finetune_lowshot", {"mixup": 0, "cutmix": 0, "drop_path": 0, "label_smoothing": 0.1, "share": 0.01}),
        ("finetune_small", {}),
    ],
)
def test_the_papers_numbers_are_in_the_files(name, paper, monkeypatch):
    monkeypatch.setitem(protocol.KINDS, "finetune", protocol.Kind("finetune", "Settings", "finetune", protocol.PIXELS))
    found = protocol.load(collect(), name)
    assert {key: getattr(found.settings, key) for key in paper} == paper
    batch = found.settings.batch_size * found.settings.accumulate
    assert batch == {"finetune": 528, "finetune_lowshot": 512, "finetune_small": 64}[name]


# Mistakes


def test_what_cannot_be_learned_is_refused():
    one = Part(Stripes(60), torch.arange(0, 60, 3), "")
    with pytest.raises(DataError, match="the 20 fit samples belong to fewer than two classes"):
        finetune(Blocks(), one, part(12, seed=1), 3, SETTINGS, READING)
    odd = Reading(DATA | {"mean": [0.5] * 2, "std": [0.5] * 2})
    with pytest.raises(ConfigError, match="augment_ops=2: RandAugment takes 1 or 3 channels, data.mean has 2"):
        tune(Blocks(), Task(part(24), 3, settings(augment_ops=2), odd), 0.1, 0.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"share": 0.1, "per_class": 3}, "only one of them can be meant"),
        ({"batch_size": 1}, "batch_size=1: at least 2"),
        ({"drop_path": 1.0}, "drop_path=1: from 0 to below 1"),
        ({"mixup": -0.5}, "mixup=-0.5: it must not be below 0"),
        ({"crop_scale": (0.9, 0.5)}, "two numbers, the smaller one first"),
        ({"crop_scale": (0.5, 1.1)}, "shares of the picture's area, at most 1"),
        ({"warmup": 5.0}, "warmup=5: not more than epochs=4"),
        ({"augment_magnitude": 31}, "augment_magnitude=31: at most 30"),
        ({"lrs": (0.0,)}, "it must be above 0"),
    ],
)
def test_settings_that_cannot_be_meant(changed, message):
    with pytest.raises(ValueError, match=message):
        settings(**changed)
