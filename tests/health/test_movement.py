"""How far a step goes, and whether samples are one picture."""

import pytest
import torch
from torch import nn

from jepakit.data.colour import How
from jepakit.health.movement import MOST, Movement
from jepakit.health.pixels import alike


class Model(nn.Module):
    def __init__(self, teacher: nn.Module | None = None):
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.predictor = nn.Linear(50, 60), nn.Linear(60, 2)
        self.idle = nn.Linear(2, 2).requires_grad_(False)
        self.target_backbone = teacher or self.backbone


def stepped(model: Model, lr: float) -> Movement:
    model.predictor(model.backbone(torch.ones(4, 50))).square().sum().backward()
    movement = Movement(model)
    with torch.no_grad():
        for p in model.backbone.parameters():
            p -= lr * p.grad
    return movement


def norm(parts) -> float:
    return float(torch.cat([p.detach().flatten() for p in parts]).norm())


def test_norms_by_part_the_length_of_a_step_and_the_size_of_weights():
    model = Model()
    before = [p.detach().clone() for p in model.backbone.parameters()]
    found = stepped(model, 0.01).figures()
    grads = {name: [p.grad for p in getattr(model, name).parameters()] for name in ("backbone", "predictor")}
    assert {k for k in found if "/" in k} == {"grad_norm/backbone", "grad_norm/predictor"}, "idle has no gradient"
    assert all(found[f"grad_norm/{name}"] == pytest.approx(norm(each), rel=1e-5) for name, each in grads.items())
    after = list(model.backbone.parameters())
    length = norm([a - b for a, b in zip(after, before, strict=True)]) / norm(after)
    assert model.backbone.weight.numel() > MOST and found["step_length"] == pytest.approx(length, rel=0.15)
    assert found["weight"] == pytest.approx(norm([model.backbone.weight]) / 3000**0.5, rel=1e-5)
    assert "teacher_distance" not in found and not any(value.requires_grad for value in found.values())


def test_a_teacher_is_measured_where_it_has_the_shape_of_what_learns():
    teacher = nn.Linear(50, 60)
    model = Model(teacher)
    found = stepped(model, 0.0).figures()
    apart = [a - b for a, b in zip(teacher.parameters(), model.backbone.parameters(), strict=True)]
    assert found["teacher_distance"] == pytest.approx(norm(apart) / norm(model.backbone.parameters()), rel=1e-5)
    assert found["step_length"] == 0
    assert "teacher_distance" not in stepped(Model(nn.Linear(3, 3)), 0.0).figures()


def cut(picture: torch.Tensor, boxes: list[tuple[int, int, int, int]], mirrored: list[bool]):
    """Crops of 16 x 16 pixels of a picture of 64, and how they came about."""
    side, views, how = picture.shape[-1], [], []
    for (left, top, right, bottom), flip in zip(boxes, mirrored, strict=True):
        piece = picture[:, top:bottom, left:right].unsqueeze(0)
        piece = nn.functional.interpolate(piece, size=(32, 32), mode="bilinear", antialias=True)[0]
        views.append(piece.flip(-1) if flip else piece)
        how.append(How(left / side, top / side, right / side, bottom / side, float(flip)))
    return torch.stack(views).unsqueeze(2), torch.tensor(how)


def smooth(seed: int) -> torch.Tensor:
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(64, 64), mode="bicubic")[0]


BOXES = [(0, 0, 48, 48), (8, 8, 64, 60), (4, 0, 60, 40), (0, 10, 50, 64)]
FLIPS = [False, True, False, True]


def test_one_picture_is_found_however_it_was_cut_and_mirrored():
    views, how = cut(smooth(0), BOXES, FLIPS)
    assert alike([views], [how], torch.arange(4))["pixel_alike"] > 0.97
    several = [cut(smooth(seed), [box], [flip]) for seed, (box, flip) in enumerate(zip(BOXES, FLIPS, strict=True))]
    views, how = (torch.cat(each) for each in zip(*several, strict=True))
    assert alike([views], [how], torch.arange(4))["pixel_alike"] < 0.5


def test_pairs_that_cannot_be_compared_are_left_out():
    views, how = cut(smooth(0), BOXES, FLIPS)
    assert alike([views], [how], torch.zeros(4, dtype=torch.long))["pixel_alike"].isnan(), "clips of one sample"
    apart, away = cut(smooth(0), [(0, 0, 20, 20), (40, 40, 60, 60)], [False, False])
    assert alike([apart], [away], torch.arange(2))["pixel_alike"].isnan()
    assert alike([views], None, torch.arange(4)) == {} and alike([views[:1]], [how[:1]], torch.arange(1)) == {}
