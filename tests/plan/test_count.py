"""What is counted without content is what real tensors come to, and what a formula says."""

import pytest
import torch
from torch.nn import functional as F

from jepakit.build import build
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.plan import count, meta
from jepakit.plan.meter import Meter

TINY = ["recipe=demo", "data.batch_size=8", "encoder.depth=2", "predictor.depth=2"]


def tiny(*overrides: str) -> dict:
    return resolve([*TINY, *overrides])


@pytest.fixture(scope="module")
def counts() -> count.Counts:
    return count.step(tiny())


def vit(tokens: float, width: int, depth: int, asked: float | None = None) -> float:
    """A plain ViT's products: 12 width^2 numbers a block and token, and attention of all tokens to all. Of the last
    block two of these twelve are for all tokens, the others for those that are asked for."""
    spared = 0.0 if asked is None else tokens - asked
    return depth * tokens * (24 * width**2 + 4 * tokens * width) - spared * (20 * width**2 + 4 * tokens * width)


def test_operations_are_those_of_the_formula(counts):
    config, tokens = tiny(), counts.tokens
    width, depth = config["encoder"]["width"], config["encoder"]["depth"]
    narrow, layers = config["predictor"]["width"], config["predictor"]["depth"]
    patch, blocks = 2 * 3 * config["tokenizer"]["patch"] ** 2 * width, config["masker"]["targets"]
    context, asked = tokens["context"], tokens["predicted"] / blocks
    encoder = vit(context, width, depth) + patch * context
    teacher = vit(tokens["target"], width, depth, min(tokens["predicted"], tokens["target"]))
    teacher += patch * tokens["target"]
    ends = 2 * width * narrow * (context + tokens["predicted"])
    predictor = blocks * vit(context + asked, narrow, layers, asked) + ends
    assert counts.forward["encoder"] == pytest.approx(8 * encoder, rel=0.02)
    assert counts.forward["teacher"] == pytest.approx(8 * teacher, rel=0.02)
    assert counts.forward["predictor"] == pytest.approx(8 * predictor, rel=0.02)
    learned = 2 * (encoder + predictor) - patch * context  # pixels need no gradient
    assert counts.flops_backward == pytest.approx(8 * learned, rel=0.02)
    assert counts.flops == counts.flops_forward + counts.flops_backward and counts.again == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_is_that_of_real_tensors(precision, monkeypatch):
    """On a CPU, with the attention that a GPU takes; a step before it has filled what is filled once."""
    monkeypatch.setattr("jepakit_vit.attention.attend", F.scaled_dot_product_attention)
    config = tiny(f"trainer.precision={precision}")
    built, planned = build(config), count.step(config)
    masks = count._typical(config, built.figures[""], 8)
    views = [torch.zeros(8, 3, 1, 32, 32)]
    for p in built.jepa.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    meters = Meter(), Meter()
    for meter in meters:
        with meter:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                total = built.jepa(views, masks).total
            total.backward()
        del total
    assert planned.activation_bytes + planned.copy_bytes == pytest.approx(meters[1].most, rel=0.01)
    assert (planned.copy_bytes > 0) == (precision == "bf16")


def test_what_is_computed_again_is_no_model_flop(counts):
    again = count.step(tiny("encoder.checkpoint_blocks=true"))
    assert (again.flops_forward, again.flops_backward) == (counts.flops_forward, counts.flops_backward)
    assert 0.5 * counts.forward["encoder"] < again.again < counts.forward["encoder"]
    assert again.activation_bytes < counts.activation_bytes


def test_parameters_are_those_of_the_model(counts):
    jepa = build(tiny()).jepa
    trained = sum(p.numel() for p in jepa.parameters() if p.requires_grad)
    assert counts.trained == trained and counts.frozen == sum(p.numel() for p in jepa.parameters()) - trained
    assert counts.parameters["teacher"] == counts.parameters["encoder"] == counts.frozen
    assert counts.gathered == {"trained": counts.trained, "frozen": counts.frozen}
    assert counts.unit == sum(p.numel() for p in jepa.backbone.encoder.blocks[0].parameters())


def test_batch_scales_and_nothing_global_changes(counts):
    state = torch.get_rng_state()
    twice = count.step(tiny(), batch=16)
    assert twice.samples == 16 and twice.parameters == counts.parameters
    assert twice.flops == pytest.approx(2 * counts.flops, rel=0.15)  # a larger batch is cut to fewer tokens
    assert torch.equal(torch.get_rng_state(), state) and not torch.nn.Linear(2, 2).weight.is_meta


def test_statistics_of_several_micro_batches_are_encoded_twice():
    found = count.step(tiny("anti_collapse=[sigreg_answers]", "trainer.accumulate=2"))
    assert found.again == found.flops_forward and found.frozen == 0


def test_branches_are_added_up_and_come_one_after_the_other(counts):
    each = ["+masker@branches.one.masker=multiblock_small", "+data@branches.two.data=world"]
    both = count.step(tiny(*each, "branches.two.data.batch_size=4", "branches.two.data.size=32"))
    assert (both.samples, both.passes, both.turns) == (12, 2, 1) and both.parameters == counts.parameters
    assert both.tokens["target"] == 2 * counts.tokens["target"]
    assert both.activation_bytes == counts.activation_bytes
    assert both.forward["teacher"] == pytest.approx(1.5 * counts.forward["teacher"])
    turns = count.step(tiny(*each, "branches.two.data.size=32", "trainer.alternate=true"))
    assert (turns.passes, turns.turns) == (1, 2)


def test_a_part_that_looks_at_its_weights_is_made_with_content(monkeypatch, counts):
    tried = []

    def looking(config: dict) -> object:
        tried.append(torch.nn.Linear(2, 2).weight.is_meta)
        if tried[-1]:
            raise ConfigError("encoder 'looks': Tensor.item() cannot be called on meta tensors")
        return build(config)

    monkeypatch.setattr(meta, "build", looking)
    assert count.step(tiny()) == counts and tried == [True, False]


def test_a_mistake_is_told_as_training_tells_it():
    with pytest.raises(ConfigError, match="predictor 'vit_predictor': width"):
        count.step(tiny("predictor.heads=5"))
