"""The parts that V-JEPA 2.1 brought: a joint tokenizer, levels of an encoder, a predictor of context and target."""

import pytest
import torch
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.joint import JointTokenizer
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.rope import between
from jepakit_vit.tokenizer import PatchTokenizer

from jepakit import testing
from jepakit.types import Grid, Mask
from tests.parity.shared import close, randn, shaken, some

GRID = Grid(2, 4, 4)
WIDTH = 14


def joint() -> JointTokenizer:
    return shaken(JointTokenizer(3, WIDTH, patch=4, tubelet=2).double())


def predictor(**settings) -> VitPredictor:
    made = VitPredictor(WIDTH, 16, 2, 2, positions="rope", zero_mask_tokens=True, **settings)
    return shaken(made.double())


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_clips_and_pictures_have_a_projection_and_a_vector_each(frames):
    tokenizer, moves = joint(), frames > 1
    alone = PatchTokenizer(3, WIDTH, 4, 2 if moves else 1).double()
    alone.load_state_dict((tokenizer.clips if moves else tokenizer.pictures).state_dict())
    pixels, index = randn(2, 3, frames, 16, 8), some(2, 8, 3)
    assert tokenizer.grid(frames, 16, 8) == (max(1, frames // 2), 4, 2)
    close(tokenizer(pixels, index), alone(pixels, index) + tokenizer.modality[int(moves)])
    testing.check_tokenizer(tokenizer.float(), (3, frames, 16, 16))


def test_modality_vectors_are_hardly_there_at_first():
    vectors = [JointTokenizer(3, 4096, patch=2).modality, VitPredictor(8, 4096, 0, 1, modality=True).modality]
    for each in vectors:
        assert each.shape == (2, 4096) and each.std().item() == pytest.approx(1e-6, rel=0.05)


def test_a_clip_that_is_cut_badly_is_refused():
    with pytest.raises(ValueError, match="a clip of 3 x 16 x 16 .* cannot be cut into boxes of 2 x 4 x 4"):
        joint().grid(3, 16, 16)


def test_levels_are_what_shorter_encoders_give():
    """Each with a norm of its own; the last has the names that it has alone."""
    encoder = shaken(VitEncoder(WIDTH, 4, 1, positions="rope", layers=(0, 2, 3)).double())
    tokens, index = randn(2, 9, WIDTH), some(2, GRID.size, 9)
    levels = encoder(tokens, index, GRID)
    weights = encoder.state_dict()
    for level, depth, norm in zip(levels, (1, 3, 4), ("norms.0", "norms.1", "norm"), strict=True):
        short = VitEncoder(WIDTH, depth, 1, positions="rope").double()
        own = {name: weights[name] for name in short.state_dict() if name.startswith("blocks")}
        short.load_state_dict(own | {f"norm.{each}": weights[f"{norm}.{each}"] for each in ("weight", "bias")})
        close(level, short(tokens, index, GRID))


def test_levels_leave_the_initial_weights_as_they_are():
    torch.manual_seed(0)
    alone = VitEncoder(WIDTH, 3, 1).state_dict()
    torch.manual_seed(0)
    found = VitEncoder(WIDTH, 3, 1, layers=(0, 2)).state_dict()
    assert found.keys() - alone.keys() == {"norms.0.weight", "norms.0.bias"}
    assert all(torch.equal(found[name], alone[name]) for name in alone)


@pytest.mark.parametrize("layers", [(), (0, 1), (2, 0, 3), (1, 1, 3), (-1, 3), (3, 4)])
def test_layers_that_there_are_not_are_refused(layers):
    with pytest.raises(ValueError, match="numbers of blocks from 0, ascending, up to the last one, 3"):
        VitEncoder(WIDTH, 4, 1, layers=layers)


def masks(recall: bool) -> Mask:
    order = some(2, GRID.size, 14)
    context, target = order[:, :6], order[:, 6:].view(2, 2, 4)
    again = context[:, None].expand(2, 2, 6)
    return Mask(context, torch.cat([target, again], 2), recall=6) if recall else Mask(context, target)


def test_asking_for_the_context_changes_nothing_else():
    """One pass gives both; blocks do not see one another, so that the context's answers differ from block to block."""
    made, seen = predictor(levels=2, recalls=True), (randn(2, 6, WIDTH), randn(2, 6, WIDTH, seed=1))
    whole, hidden = (made(seen, masks(recall), GRID) for recall in (True, False))
    assert [level.shape for level in whole] == [(2, 2, 10, WIDTH)] * 2
    for level, other in zip(whole, hidden, strict=True):
        close(level[:, :, :4], other)
        assert not torch.allclose(level[:, 0, 4:], level[:, 1, 4:])
    testing.check_predictor(made.float(), (torch.randn(2, 4, WIDTH),) * 2)


def test_a_vector_tells_clips_from_pictures():
    made = predictor(modality=True)
    context, target = torch.arange(4).expand(2, 4), torch.arange(4, 8).expand(2, 1, 4)
    seen = randn(2, 4, WIDTH)
    with torch.no_grad():
        before = [made(seen, Mask(context, target), Grid(t, 4, 4)) for t in (1, 2)]
        made.modality[0] += randn(16)  # the pictures'
        after = [made(seen, Mask(context, target), Grid(t, 4, 4)) for t in (1, 2)]
    close(before[1], after[1])
    assert not torch.allclose(before[0], after[0])


REFUSED = {
    "no output": ({}, 1, "the mask asks for 6 tokens of the context; vit_predictor needs recalls=true"),
    "pyramid": ({"recalls": True}, 3, "vit_predictor reads tokens, the encoder gives a pyramid of 3 levels"),
    "tokens": ({"levels": 2}, 1, "vit_predictor reads a pyramid of 2 levels, the encoder gives tokens"),
    "other": ({"levels": 2}, 3, "vit_predictor reads a pyramid of 2 levels, the encoder gives a pyramid of 3 levels"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_predictor_refuses_what_it_has_no_part_for(what):
    settings, levels, reason = REFUSED[what]
    seen = tuple(randn(2, 6, WIDTH) for _ in range(levels))
    with pytest.raises(ValueError, match=f"^{reason}$"):
        predictor(**settings)(seen if levels > 1 else seen[0], masks(True), GRID)


@pytest.mark.parametrize("count", [14, 16, 24])
def test_places_are_scaled_as_in_the_released_code(count):
    """``interpolate_rope``: number times 15 over the side less one, 15 being the last place at 256 pixels."""
    close(between(count, 16), torch.tensor([i * 15 / (count - 1) for i in range(count)], dtype=torch.float64))
