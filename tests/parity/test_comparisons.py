"""What the I-JEPA paper compares with, against formulas: pixels as targets, a teacher that is masked at its input."""

from collections.abc import Callable

import pytest
import torch
from jepakit_ema.ema import Ema
from jepakit_pixels.pixels import Pixels
from jepakit_vit.tokenizer import PatchTokenizer
from torch import Tensor

from jepakit import seeds
from jepakit.build import Built, build
from jepakit.config import resolve
from jepakit.jepa import Backbone
from jepakit.types import Grid, Mask
from tests.contracts.toys import AnyGridEncoder
from tests.parity import plain
from tests.parity.shared import DEPTH, HEADS, PATCH, PREDICTOR_DEPTH, PREDICTOR_HEADS, SMALL, close, randn, small

TEACHER = "anti_collapse.strategies.ema.teacher"
Answer = Callable[[Tensor, Tensor], Tensor]
"""Of a picture ``C H W`` at the tokens of one block: ``Q D``."""


def backbone(**tokenizer: int) -> Backbone:
    return Backbone(PatchTokenizer(3, 8, **tokenizer), AnyGridEncoder(8)).double()


def normalised(patch: Tensor) -> Tensor:
    """One patch's numbers less their mean, over their standard deviation, as the released MAE code has it."""
    centred = patch - patch.sum() / patch.numel()
    return centred / ((centred * centred).sum() / (patch.numel() - 1) + 1e-6).sqrt()


def plain_pixels(picture: Tensor, asked: Tensor) -> Tensor:
    return torch.stack([normalised(each) for each in plain.patches(picture, PATCH)])[asked]


def plain_loss(built: Built, pictures: Tensor, mask: Mask, answer: Answer, distance: Callable) -> Tensor:
    """The mean over every number of every block of every picture."""
    w, errors = built.jepa.state_dict(keep_vars=True), []
    for picture, keep, blocks in zip(pictures.squeeze(2), mask.context, mask.target, strict=True):
        seen = plain.encode(picture, keep, w, "backbone", PATCH, DEPTH, HEADS)
        for asked in blocks:
            grid = built.grid.h, built.grid.w
            guess = plain.predict(seen, keep, asked, w, grid, PREDICTOR_DEPTH, PREDICTOR_HEADS)
            errors.append(distance(guess, answer(picture, asked).detach()))
    return torch.stack(errors).mean()


def step_is(built: Built, answer: Answer, distance: Callable = plain.smooth_l1) -> None:
    """Loss and every gradient of a step are what the formulas say."""
    pictures = randn(3, 3, 1, 24, 24)
    (mask,) = built.masker(built.grid, 3, seeds.generator("comparisons"))
    trained = [p for p in built.jepa.parameters() if p.requires_grad]
    found = built.jepa([pictures], [mask]).total
    expected = plain_loss(built, pictures, mask, answer, distance)
    close(found, expected)
    for one, other in zip(torch.autograd.grad(found, trained), torch.autograd.grad(expected, trained), strict=True):
        close(one, other)


@pytest.mark.parametrize("masker", ["multiblock", "rasterized", "block", "random"])
def test_a_step_towards_pixels_is_what_the_formulas_say(masker):
    room = ["masker.min_keep=2"] if masker == "multiblock" else []
    config = resolve([*SMALL[:-3], *SMALL[-2:], f"masker={masker}", *room, "anti_collapse=[pixels]", "distance=l2"])
    built = build(config)
    built.jepa.double()
    assert built.jepa.predictor.proj.out_features == 3 * PATCH * PATCH
    step_is(built, plain_pixels, lambda guess, truth: (guess - truth) ** 2)


def test_a_step_with_a_teacher_masked_at_its_input_is_what_the_formulas_say():
    built, _ = small("anti_collapse.ema.mask=input")
    w = built.jepa.state_dict()

    def alone(picture: Tensor, asked: Tensor) -> Tensor:
        return plain.norm(plain.encode(picture, asked, w, TEACHER, PATCH, DEPTH, HEADS), eps=1e-5)

    step_is(built, alone)


@pytest.mark.parametrize("tubelet, patch", [(1, 4), (2, 3)])
def test_pixels_are_in_the_order_of_the_tokenizers_boxes(tubelet, patch):
    view, own = randn(2, 3, 4, 12, 24), backbone(patch=patch, tubelet=tubelet)
    boxes, grid = own.tokenizer.boxes(view), own.grid(view)
    untouched = Pixels((3, 4, 12, 24), grid, normalise=False)
    assert torch.equal(untouched.targets(own, view), boxes) and untouched.width == boxes.shape[-1]
    expected = torch.stack([torch.stack([normalised(box) for box in sample]) for sample in boxes])
    close(Pixels((3, 4, 12, 24), grid).targets(own, view), expected)


def test_a_patch_of_one_colour_has_no_pattern():
    flat = torch.full((1, 3, 1, 8, 8), 0.75, dtype=torch.float64)
    assert not Pixels((3, 1, 8, 8), Grid(1, 2, 2)).targets(backbone(patch=4), flat).any()


@pytest.mark.parametrize(
    "shape, grid, reason",
    [
        ((3, 1, 30, 32), Grid(1, 4, 4), "a view of 1 x 30 x 32 .* is not cut evenly by a grid of 1 x 4 x 4 tokens"),
        ((1, 1, 4, 4), Grid(1, 4, 4), "a single number has no standard deviation; set normalise=false"),
    ],
)
def test_pixels_that_cannot_be_are_refused(shape, grid, reason):
    with pytest.raises(ValueError, match=reason):
        Pixels(shape, grid)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_momentum_is_that_of_the_samples_a_step_takes(ratio):
    ema = Ema(start=0.9, end=0.98, batch_ratio=ratio)
    ema.prepare(backbone(), 8)
    for step in range(12):
        stated = plain.momentum(min(step, 8), 0.9, 0.98, 8)
        assert ema.momentum(step) == pytest.approx(stated**ratio, rel=1e-14)


def test_one_step_of_two_batches_forgets_as_much_as_two_of_one():
    """While the momentum and the backbone stand still."""
    slow = []
    for ratio, steps in ((1.0, 2), (2.0, 1)):
        own, ema = backbone(), Ema(0.9, 0.9, batch_ratio=ratio)
        ema.prepare(own, steps)
        with torch.no_grad():
            for fast, teacher in zip(own.parameters(), ema.teacher.parameters(), strict=True):
                fast.fill_(1.0), teacher.fill_(3.0)
        for step in range(steps):
            ema.after_step(own, step)
        slow.append(torch.cat([p.flatten() for p in ema.teacher.parameters()]))
    close(slow[0], slow[1])
    close(slow[0], torch.full_like(slow[0], 1 + 2 * 0.9**2))


def test_the_build_tells_the_teacher_what_a_step_takes():
    built = build(resolve(SMALL), steps=10, batch_ratio=0.5)
    assert built.jepa.anti_collapse.strategies["ema"].momentum(0) == pytest.approx(0.996**0.5, rel=1e-14)
