"""The checks themselves: each lets a sound component pass, and catches what breaks its contract."""

import pytest
import torch
from torch import Tensor, nn

from jepakit import testing
from jepakit.jepa import Backbone
from jepakit.types import Grid, Mask, take
from tests.contracts import toys

GRID = Grid(1, 4, 4)
CONTEXT, TARGET = torch.arange(8).expand(2, 8), torch.arange(8, 16).view(1, 2, 4).expand(2, 2, 4)
SOUND = Mask(CONTEXT, TARGET)
AGAIN = torch.cat([TARGET, CONTEXT[:, None].expand(2, 2, 8)], dim=2)
RECALLED = Mask(CONTEXT, AGAIN, recall=8)

BROKEN_MASKS = {
    "floats": (SOUND._replace(context=CONTEXT.float()), "context holds torch.float32, indices are int64"),
    "no blocks": (SOUND._replace(target=TARGET.flatten(1)), "target is (2, 8), batch 2"),
    "another batch": (Mask(CONTEXT[:1], TARGET), "context is (1, 8), batch 2"),
    "empty target": (SOUND._replace(target=TARGET[:, :, :0]), "target is empty"),
    "no block at all": (SOUND._replace(target=TARGET[:, :0]), "target is empty"),
    "empty context": (SOUND._replace(context=CONTEXT[:, :0]), "context is empty"),
    "beyond the grid": (SOUND._replace(target=TARGET + 1), "target reaches from 9 to 16, the grid has 16 tokens"),
    "below zero": (SOUND._replace(context=CONTEXT - 1), "context reaches from -1 to 6, the grid has 16 tokens"),
    "twice": (SOUND._replace(context=CONTEXT // 2), "context holds a token twice"),
    "overlap": (SOUND._replace(target=TARGET - 4), "context and target share 8 tokens"),
    "all is seen": (SOUND._replace(context=None), "context or target is the whole view"),
    "weight": (SOUND._replace(weight=torch.ones(2, 8)), "weight has not the target's shape"),
    "recalled, another order": (
        RECALLED._replace(context=CONTEXT.flip(1)),
        "the last tokens of a target block are not",
    ),
    "recalled, another token": (
        RECALLED._replace(target=AGAIN.roll(1, 2)),
        "the last tokens of a target block are not",
    ),
    "recalled in part": (RECALLED._replace(recall=7), "7 tokens are recalled, the context has 8"),
    "recalled elsewhere": (RECALLED._replace(target_view=1), "what is recalled lies in another view than the context"),
    "recalled of nothing": (RECALLED._replace(context=None), "what is recalled is named by context and target"),
    "recalled alone": (RECALLED._replace(target=AGAIN[:, :, 4:]), "target is empty"),
    "recalled unsaid": (RECALLED._replace(recall=0), "context and target share 16 tokens"),
}


@pytest.mark.parametrize("broken", BROKEN_MASKS)
def test_a_broken_mask(broken):
    mask, said = BROKEN_MASKS[broken]
    with pytest.raises(AssertionError) as caught:
        testing.check_mask(mask, GRID, 2)
    assert str(caught.value).startswith(said)


def test_a_sound_mask():
    testing.check_mask(SOUND._replace(weight=torch.ones(2, 2, 4)), GRID, 2)
    testing.check_mask(RECALLED._replace(weight=torch.ones(2, 2, 12)), GRID, 2)
    assert torch.equal(RECALLED.imagined, TARGET) and Mask(None, None).imagined is None
    testing.check_mask(SOUND._replace(target=TARGET - 4), GRID, 2, overlaps=True)
    testing.check_mask(SOUND._replace(target=TARGET - 4, target_view=1), GRID, 2)
    testing.check_mask(Mask(None, None, 0, 1), GRID, 2)
    testing.check_mask(Mask(None, None, 0, (0, 1)), GRID, 2)


class Unkeyed(toys.Halves):
    """Draws from the global state."""

    def __call__(self, grid, batch_size, rng):
        order = torch.rand(batch_size, grid.size).argsort(1)
        return [Mask(order[:, :3], order[:, None, 3:6])]


class Remembering(toys.Halves):
    """Goes on from where it was."""

    calls = 0

    def __call__(self, grid, batch_size, rng):
        self.calls += 1
        return super().__call__(grid, batch_size, rng) * self.calls


class Bare(toys.Halves):
    def __call__(self, grid, batch_size, rng):
        return super().__call__(grid, batch_size, rng)[0]


@pytest.mark.parametrize(
    ("masker", "said"),
    [
        (Unkeyed(), "the same generator state gave other masks"),
        (Remembering(), "the same generator state gave 1 masks, then 2"),
        (Bare(), "a masker returns a list of one mask or more"),
        (toys.Overlapping(), "context and target share"),
    ],
)
def test_a_broken_masker(masker, said):
    with pytest.raises(AssertionError, match=said):
        testing.check_masker(masker)


def test_sound_maskers():
    testing.check_masker(toys.Halves())
    testing.check_masker(toys.Pair())
    testing.check_masker(toys.TwoTubes(), testing.CLIP_GRIDS)


class Rows(nn.Module):
    """A sound tokenizer: rows of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(96, 5)

    def grid(self, t: int, h: int, w: int) -> Grid:
        return Grid(t, h, 1)

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        rows = pixels.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)
        return take(self.proj(rows), keep)


class Shifted(Rows):
    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        return super().forward(pixels, None if keep is None else (keep + 1) % pixels.shape[3])


class Deaf(Rows):
    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        return super().forward(pixels)


class Normed(Rows):
    """A token depends on which others are kept."""

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        tokens = super().forward(pixels, keep)
        return tokens - tokens.mean(1, keepdim=True)


class Miscounting(Rows):
    def grid(self, t: int, h: int, w: int) -> Grid:
        return Grid(t, h, 2)


@pytest.mark.parametrize("broken", [Shifted, Deaf, Normed])
def test_a_tokenizer_whose_kept_tokens_differ(broken):
    with pytest.raises(AssertionError, match="a kept token differs from what it is among all tokens"):
        testing.check_tokenizer(broken())


def test_a_tokenizer_that_does_not_fill_its_grid():
    with pytest.raises(AssertionError, match="32, 5\\) tokens, the grid has 64"):
        testing.check_tokenizer(Miscounting())


def test_a_sound_tokenizer_leaves_random_state_alone():
    rows, before = Rows(), torch.get_rng_state()
    testing.check_tokenizer(rows)
    assert torch.equal(before, torch.get_rng_state())


class Wide(toys.AnyGridEncoder):
    def forward(self, tokens, index, grid):
        return super().forward(tokens, index, grid).repeat(1, 1, 2)


class Idle(toys.AnyGridEncoder):
    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(3))


class Infinite(toys.AnyGridEncoder):
    def forward(self, tokens, index, grid):
        return super().forward(tokens, index, grid) / 0


class Lost(toys.AnyGridEncoder):
    """No index is not all tokens in order."""

    def forward(self, tokens, index, grid):
        return super().forward(tokens, torch.zeros(grid.size, dtype=torch.int64) if index is None else index, grid)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Wide, "features are 32 wide, width says 16"),
        (Idle, "no gradient reaches spare"),
        (Infinite, "features are not finite"),
        (Lost, "naming all tokens in order gives other features than naming none"),
    ],
)
def test_a_broken_encoder(broken, said):
    with pytest.raises(AssertionError, match=said):
        testing.check_encoder(broken())


def test_sound_encoders():
    testing.check_encoder(toys.AnyGridEncoder())
    picture = torch.randn(2, 1, 3, 1, 8, 8)
    testing.check_encoder(toys.PooledEncoder(), picture, Grid(1, 1, 1))
    testing.check_encoder(toys.PyramidEncoder(), picture, Grid(1, 1, 1))


class Talking(toys.KindPredictor):
    """Blocks see one another."""

    def forward(self, seen, mask, grid, condition=None):
        guess = super().forward(seen, mask, grid)
        return guess + guess.mean(1, keepdim=True)


class Narrow(toys.KindPredictor):
    def forward(self, seen, mask, grid, condition=None):
        return super().forward(seen, mask, grid)[..., :3]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Talking, "a target block's guess depends on the other blocks"),
        (Narrow, "the guess is \\(2, 2, 3, 3\\)"),
        (lambda width: toys.Flat(), "the guess is \\(2, 4, 16\\)"),
    ],
)
def test_a_broken_predictor(broken, said):
    with pytest.raises(AssertionError, match=said):
        testing.check_predictor(broken(16), torch.randn(2, 16, 16))


def test_sound_predictors():
    class Dropping(toys.KindPredictor):
        def forward(self, seen, mask, grid, condition=None):
            return nn.functional.dropout(super().forward(seen, mask, grid), 0.5, self.training)

    testing.check_predictor(toys.KindPredictor(16, kinds=1), torch.randn(2, 16, 16))
    predictor = Dropping(16, kinds=1)
    testing.check_predictor(predictor, torch.randn(2, 16, 16))
    assert predictor.training


class Fickle(toys.Own):
    def after_step(self, backbone, step):
        self.tired = True

    def targets(self, backbone, view):
        return None if getattr(self, "tired", False) else super().targets(backbone, view)


class Vector(toys.Guard):
    def penalty(self, seen, guess, truth):
        return {"spread": seen.std(0).flatten()}


class Hidden(toys.Own):
    """What it learns from a step is nowhere a checkpoint looks."""

    scale = 1.0

    def after_step(self, backbone, step):
        self.scale = self.scale / 2

    def targets(self, backbone, view):
        return backbone(view) * self.scale


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Fickle, "it answers only now and then"),
        (Vector, "penalty 'spread' is no finite scalar"),
        (Hidden, "what it keeps from step to step is not all in its state_dict"),
    ],
)
def test_a_broken_strategy(broken, said):
    with pytest.raises(AssertionError, match=said):
        testing.check_anti_collapse(broken(), *backbone_and_view())


@pytest.mark.parametrize("strategy", [toys.Guard, toys.Own, toys.Still])
def test_sound_strategies(strategy):
    backbone, view = backbone_and_view()
    before = [parameter.clone() for parameter in backbone.parameters()]
    testing.check_anti_collapse(strategy(), backbone, view)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))


def backbone_and_view() -> tuple[Backbone, Tensor]:
    torch.manual_seed(0)
    return Backbone(toys.Whole(), toys.PooledEncoder()), torch.randn(4, 3, 1, 8, 8)


class Noise:
    """A source; ``fixed``: the same sample each time."""

    classes = {"class": ("only",)}

    def __init__(self, fixed: bool = True, label: int = 0, dtype: torch.dtype = torch.uint8):
        self.fixed, self.label, self.dtype = fixed, label, dtype

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        rng = torch.Generator().manual_seed(index) if self.fixed else None
        return torch.randint(0, 255, (3, 1, 4, 4), generator=rng).to(self.dtype), {"class": self.label}

    def describe(self, index: int) -> str:
        return f"noise {index}"


def test_sources():
    testing.check_source(Noise(), 2)
    for broken, said in (
        (Noise(fixed=False), "sample 0 differs from one time to the next"),
        (Noise(label=1), "label 'class' is 1, there are 1 classes"),
        (Noise(dtype=torch.float32), "a picture is torch.float32"),
    ):
        with pytest.raises(AssertionError, match=said):
            testing.check_source(broken)
