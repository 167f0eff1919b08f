"""Many heads at once: each as if it were alone, chosen without the test, read from the layers that it says."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from jepakit.catalog import collect
from jepakit.evaluate.linear import Group, Head, accuracies, grid, learn, linear, rate
from jepakit.evaluate.protocol import chosen
from jepakit.seeds import generator

from .test_frozen import clouds

FILES = {name: chosen(collect(), name, {})[0].settings for name in ("linear", "linear_ijepa")}


def settings(name: str = "linear", **own):
    return dataclasses.replace(FILES[name], **own)


def layered(count: int, seed: int, useful: int):
    """Two layers of twelve numbers each, of which one tells the class."""
    good, noise = clouds(count, seed, 6.0), clouds(count, seed + 50, 0.0)
    parts = [noise.x, good.x] if useful == 1 else [good.x, noise.x]
    return good._replace(x=torch.cat(parts, 1), widths=(12, 12))


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_heads_side_by_side_are_those_that_learn_alone(optimizer):
    part, s = layered(90, 0, 1), settings(optimizer=optimizer, epochs=3, batch_size=32)
    heads = [Head("last", "none", 0.1, 0.0), Head("last", "none", 1e8, 0.0), Head("last4", "batch", 0.3, 0.01)]
    together = learn(part, 4, heads, s, "cpu")
    found = [head for group in together for head in zip(group.weight, group.bias, strict=True)]
    for head, (weight, bias) in zip(heads, found, strict=True):
        ((alone,),) = ([group for group in learn(part, 4, [head], s, "cpu")],)
        if head.lr < 1e6:  # the second one bursts, and harms nobody
            torch.testing.assert_close(alone.weight[0], weight)
            torch.testing.assert_close(alone.bias[0], bias)
    assert len(accuracies(together, part, "cpu")) == 3


def test_sgd_is_written_out():
    """Batch norm by running means of all steps, cosine per step, momentum, decay of weights but not of biases."""
    part = clouds(50, 0, 1.0)
    s = settings(epochs=2, batch_size=20, lr_batch=10, momentum=0.9)
    (group,) = learn(part, 4, [Head("last", "none", 0.05, 0.1)], s, "cpu")
    weight = torch.randn(4, 12, generator=generator("linear", 0, "last")) * 0.01
    bias, speed_w, speed_b, step = torch.zeros(4), torch.zeros(4, 12), torch.zeros(4), 0
    for epoch in range(2):
        order = torch.randperm(50, generator=generator("linear", 0, "order", epoch))
        for rows in order.split(20):
            w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
            F.cross_entropy(part.x[rows] @ w.T + b, part.y[rows]).backward()
            lr = 0.05 * 2 * rate(step / 3, s)
            speed_w, speed_b = 0.9 * speed_w + w.grad + 0.1 * weight, 0.9 * speed_b + b.grad
            weight, bias, step = weight - lr * speed_w, bias - lr * speed_b, step + 1
    torch.testing.assert_close(group.weight[0].detach(), weight)
    torch.testing.assert_close(group.bias[0].detach(), bias)


def test_rates_fall_as_the_files_say():
    paper, own = FILES["linear_ijepa"], FILES["linear"]
    assert [rate(epoch, paper) for epoch in (0.0, 14.9, 15.0, 30.0, 45.0)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])
    assert [rate(epoch, own) for epoch in (0.0, 50.0, 100.0)] == pytest.approx([1, 0.5, 0])
    assert (paper.batch_size, paper.lrs, paper.weight_decays) == (16384, (0.01, 0.05, 0.001), (0.0005, 0.0))


@pytest.mark.parametrize(("useful", "layer"), [(0, "last4"), (1, "last")])
def test_the_layer_that_tells_most_is_chosen(useful, layer):
    s = settings(epochs=6, batch_size=64, lrs=(0.1,), norms=("none",))
    found = linear(layered(300, 0, useful), layered(200, 1, useful), 4, s)
    assert found["score"] > 0.9 and (useful == 1 or found["layer"] == layer)
    assert {each["layer"] for each in found["tried"]} == {"last", "last4"}
    alone = linear(clouds(80, 0, 5.0), clouds(80, 1, 5.0), 4, s)
    assert {each["layer"] for each in alone["tried"]} <= {"last"}


def test_a_grid_is_every_combination_and_a_last_sample_is_no_batch():
    s, part = settings(batch_size=20, epochs=1), layered(41, 0, 1)
    assert len(grid(s, part)) == 2 * 2 * len(s.lrs) * len(s.weight_decays)
    (group,) = learn(part, 4, [Head("last", "batch", 0.1, 0.0)], s, "cpu")
    assert isinstance(group, Group) and int(group.norm.num_batches_tracked) == 2
