"""Positions of clips: tables against formulas, rotary ones against rotations, and what encoder and predictor make of
them; and the other settings that clips brought."""

import math
from functools import partial

import pytest
import torch
from jepakit_vit.block import mlp
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.positions import Positions, Tables, sincos_3d
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.rope import Rope, between, located, rotate, turns
from jepakit_vit.tokenizer import PatchTokenizer
from torch import Tensor
from torch.nn import functional as F

from jepakit.build import build
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.jepa import Jepa
from jepakit.types import Grid, Mask
from tests.parity import plain
from tests.parity.shared import SMALL, close, randn, shaken, some

GRID = Grid(3, 4, 5)
HEAD = 14
"""Channels of a head: two pairs for each axis, and two channels that are not turned."""
HEADS, DEPTH, KEPT, ASKED = 2, 2, 7, 4
WIDTH = HEADS * HEAD
Place = tuple[float, float, float]


def every_place(grid: Grid) -> list[Place]:
    """Tubelet, row and column of each token, in the order of tokens."""
    return [(t, row, column) for t in range(grid.t) for row in range(grid.h) for column in range(grid.w)]


def written_out(places: list[Place], width: int) -> Tensor:
    """Token by token, channel by channel: time, row, column; sines, then cosines; the finest wave first."""
    waves = [1 / 10000 ** (k / math.ceil(width / 6)) for k in range(math.ceil(width / 6))]
    table = [[wave(x * w) for x in place for wave in (math.sin, math.cos) for w in waves] for place in places]
    return torch.tensor(table, dtype=torch.float64)[:, :width]


def turned(x: Tensor, places: list[Place], tiled: bool) -> Tensor:
    """``N d`` turned channel by channel: pairs are the numbers of a plane."""
    found, axis = x.clone(), 2 * (x.shape[1] // 3 // 2)
    for n, place in enumerate(places):
        for a, where in enumerate(place):
            angles = [where / 10000 ** (k / (axis // 2)) for k in range(axis // 2)]
            own = angles * 2 if tiled else [angle for angle in angles for _ in range(2)]
            for i in range(a * axis, (a + 1) * axis, 2):
                one, two = own[i - a * axis], own[i - a * axis + 1]
                found[n, i] = x[n, i] * math.cos(one) - x[n, i + 1] * math.sin(one)
                found[n, i + 1] = x[n, i + 1] * math.cos(two) + x[n, i] * math.sin(two)
    return found


def attention(x: Tensor, w: plain.Weights, name: str, places: list[Place], tiled: bool) -> Tensor:
    """``N D`` to ``N D``, head by head; queries and keys are turned."""
    answers = []
    for q, k, v in zip(*(part.split(HEAD, 1) for part in plain.linear(x, w, f"{name}.qkv").chunk(3, 1)), strict=True):
        score = turned(q, places, tiled) @ turned(k, places, tiled).T / math.sqrt(HEAD)
        answers.append(score.softmax(1) @ v)
    return plain.linear(torch.cat(answers, 1), w, f"{name}.proj")


def transformer(x: Tensor, module: torch.nn.Module, places: list[Place], tiled: bool) -> Tensor:
    w = module.state_dict()
    for i in range(DEPTH):
        block = f"blocks.{i}"
        x = x + attention(plain.scaled_norm(x, w, f"{block}.norm1"), w, f"{block}.attn", places, tiled)
        hidden = plain.gelu(plain.linear(plain.scaled_norm(x, w, f"{block}.norm2"), w, f"{block}.mlp.fc1"))
        x = x + plain.linear(hidden, w, f"{block}.mlp.fc2")
    return plain.scaled_norm(x, w, "norm")


def encoder(positions: str, **settings) -> VitEncoder:
    torch.manual_seed(0)
    return shaken(VitEncoder(WIDTH, DEPTH, HEADS, positions=positions, **settings).double())


@pytest.mark.parametrize("width", [24, 28, 16, 7, 1])
@pytest.mark.parametrize("grid", [GRID, Grid(1, 3, 2), Grid(9, 1, 4)])
def test_three_dimensions_written_out(grid, width):
    close(sincos_3d(grid, width), written_out(every_place(grid), width))


def test_the_axes_are_time_row_column_and_a_picture_has_one_time():
    table = sincos_3d(GRID, 24).view(*GRID, 3, 8)
    for axis in range(3):
        assert table[..., axis, :].std(dim=axis).max() > 0.1
        others = table[..., axis, :].transpose(0, axis).flatten(1, 2)  # place on the axis, elsewhere, channel
        close(others, others[:, :1].expand_as(others))
    close(sincos_3d(Grid(1, 4, 5), 24), table[0].flatten(0, 1).flatten(1))


def test_every_token_of_a_clip_has_a_position_of_its_own():
    table = sincos_3d(Grid(16, 12, 12), 24)
    assert torch.cdist(table, table).fill_diagonal_(torch.inf).min() > 0.1


@pytest.mark.parametrize("native, times", [((2, 3), 1), ((6, 2, 3), 2)])
def test_places_are_scaled_to_the_native_grid_time_only_where_it_is_named(native, times):
    scaled = [
        ((t + 0.5) * times - 0.5, (row + 0.5) * 2 / 4 - 0.5, (column + 0.5) * 3 / 5 - 0.5)
        for t, row, column in every_place(GRID)
    ]
    close(sincos_3d(GRID, 24, native), written_out(scaled, 24))
    assert torch.equal(sincos_3d(GRID, 24, (4, 5)), sincos_3d(GRID, 24, GRID))
    assert torch.equal(sincos_3d(GRID, 24, GRID), sincos_3d(GRID, 24))


def test_close_to_the_table_resampled_as_the_released_code_does():
    """Between the outermost places of the native grid, where waves are slow against its step."""
    native, used = Grid(6, 8, 8), Grid(12, 16, 16)
    table = sincos_3d(native, 48).view(1, *native, 48).permute(0, 4, 1, 2, 3)
    theirs = F.interpolate(table, scale_factor=(2, 2, 2), mode="trilinear")[0].permute(1, 2, 3, 0)
    ours = sincos_3d(used, 48, native).view(*used, 48)
    assert (ours - theirs)[1:-1, 1:-1, 1:-1].abs().max() < 0.12
    assert (sincos_3d(used, 48).view(*used, 48) - theirs)[1:-1, 1:-1, 1:-1].abs().max() > 1


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("native", [None, (2, 9), (5, 2, 9)])
def test_what_is_turned_is_turned_by_the_formula(tiled, native):
    x, grid = randn(1, HEADS, GRID.size, HEAD), native and (GRID.t, *native)[-3:]
    step = [1.0, 1.0, 1.0] if grid is None else [(n - 1) / (c - 1) for n, c in zip(grid, GRID, strict=True)]
    places = [tuple(s * x for s, x in zip(step, place, strict=True)) for place in every_place(GRID)]
    turn = Rope(HEAD, native, tiled).turn(None, GRID, x)
    assert turn.shape == (1, 1, GRID.size, 2 * HEAD)
    close(rotate(x, turn)[0], torch.stack([turned(head, places, tiled) for head in x[0]]))
    assert torch.equal(rotate(x, turn)[..., -2:], x[..., -2:])


def test_the_ends_of_two_grids_are_aligned():
    assert between(5, 5).tolist() == [0, 1, 2, 3, 4] and between(4, 10).tolist() == [0, 3, 6, 9]
    assert between(1, 7).tolist() == between(1, 1).tolist() == [0]


def scores(positions: Rope, grid: Grid, shift: int) -> Tensor:
    """Of each token with each, before softmax, for tokens that lie ``shift`` further on all axes."""
    inner = Grid(2, 2, 3)
    index = torch.arange(grid.size).view(grid)[shift:, shift:, shift:][: inner.t, : inner.h, : inner.w].flatten()
    q, k = rotate(randn(2, 1, 1, inner.size, HEAD), positions.turn(index[None], grid, randn(1)))
    return q @ k.mT


def test_the_corrected_form_is_relative_and_keeps_lengths_and_the_released_one_neither():
    x, grid = randn(1, 1, GRID.size, HEAD), Grid(6, 6, 7)
    right, released = Rope(HEAD), Rope(HEAD, tiled=True)
    close(scores(right, grid, 4), scores(right, grid, 0))
    assert (scores(released, grid, 4) - scores(released, grid, 0)).abs().max() > 0.1
    close(rotate(x, right.turn(None, GRID, x)).norm(dim=-1), x.norm(dim=-1))
    assert (rotate(x, released.turn(None, GRID, x)).norm(dim=-1) - x.norm(dim=-1)).abs().max() > 0.1


def test_one_pair_an_axis_leaves_nothing_to_tile():
    assert torch.equal(turns(GRID, 8, tiled=True), turns(GRID, 8))


@pytest.mark.parametrize("positions", ["rope", "rope_tiled"])
@pytest.mark.parametrize("some_kept", [False, True])
def test_an_encoder_with_rotary_positions_is_what_the_formulas_say(positions, some_kept):
    model, where = encoder(positions), every_place(GRID)
    index = some(2, GRID.size, KEPT) if some_kept else torch.arange(GRID.size).expand(2, -1)
    tokens = randn(2, index.shape[1], WIDTH)
    expected = [
        transformer(x, model, [where[i] for i in row], positions == "rope_tiled")
        for x, row in zip(tokens, index, strict=True)
    ]
    close(model(tokens, index if some_kept else None, GRID), torch.stack(expected))


def test_an_encoder_with_tables_of_three_dimensions_is_what_the_formulas_say():
    model, keep, tokens = encoder("sincos_3d"), some(2, GRID.size, KEPT), randn(2, KEPT, WIDTH)
    weights = {f"encoder.{name}": value for name, value in model.state_dict().items()}
    x = tokens + written_out(every_place(GRID), WIDTH)[keep]
    close(model(tokens, keep, GRID), torch.stack([plain.transformer(s, weights, "encoder", DEPTH, HEADS) for s in x]))


@pytest.mark.parametrize("positions", ["sincos_3d", "rope", "rope_tiled"])
def test_a_predictor_of_clips_is_what_the_formulas_say(positions):
    model = shaken(VitPredictor(9, WIDTH, DEPTH, HEADS, mask_tokens=2, positions=positions).double())
    keep, blocks = some(2, GRID.size, KEPT), some(6, GRID.size, ASKED, seed=1).unflatten(0, (2, 3))
    seen, where, w = randn(2, KEPT, 9), every_place(GRID), model.state_dict()
    found = model(seen, Mask(keep, blocks, kind=1), GRID)
    added = torch.zeros(GRID.size, WIDTH) if "rope" in positions else written_out(where, WIDTH)
    for b in range(2):
        for m in range(3):
            x = torch.cat([plain.linear(seen[b], w, "embed"), w["mask_token"][1].expand(ASKED, -1)])
            order = torch.cat([keep[b], blocks[b, m]])
            at = [where[i] for i in order] if "rope" in positions else [(0.0, 0.0, 0.0)] * len(order)
            x = transformer(x + added[order], model, at, positions == "rope_tiled")
            close(found[b, m], plain.linear(x[KEPT:], w, "proj"))


@pytest.mark.parametrize("positions", ["rope", "rope_tiled", "sincos_3d"])
def test_the_whole_clip_may_be_asked_for_and_seen(positions):
    model = shaken(VitPredictor(9, WIDTH, 1, HEADS, positions=positions).double())
    seen, every = randn(2, GRID.size, 9), torch.arange(GRID.size).expand(2, -1)
    close(model(seen, Mask(None, None), GRID), model(seen, Mask(every, every[:, None]), GRID))


def test_angles_stay_in_float32_for_tokens_of_16_bits():
    x = randn(2, 1, HEADS, 5, HEAD).bfloat16()
    index = torch.tensor([[0, 999, 40_000, 3, 17]])
    turn = Rope(HEAD).turn(index, Grid(64, 32, 32), x)
    assert turn.dtype == torch.float32 and rotate(x, turn).dtype == torch.bfloat16
    exact = rotate(x.double(), Rope(HEAD).turn(index, Grid(64, 32, 32), x.double()))
    torch.testing.assert_close(rotate(x, turn).double(), exact, rtol=2**-8, atol=1e-6)


def test_tables_are_made_once_and_the_oldest_makes_room():
    made = []
    tables = Tables(lambda grid: made.append(grid) or torch.zeros(grid.size, 1))
    for t in [1, 1, *range(1, Tables.MOST + 2), 1]:
        tables.at(None, Grid(t, 1, 1), randn(1))
    assert [grid.t for grid in made] == [*range(1, Tables.MOST + 2), 1]


def of_clips(*settings: str) -> Jepa:
    config = resolve([*(each for each in SMALL if "masker" not in each), *settings])
    config["data"] |= {"frames": 4}
    return build({**config, "masker": {"name": "random_tubes", "ratio": 0.5}}).jepa.double()


def test_clips_need_positions_that_know_time():
    with pytest.raises(ConfigError, match="2-D positions know no time, the grid is 4 x 6 x 6"):
        of_clips()


@pytest.mark.parametrize("positions, made", [("sincos_3d", Positions), ("rope", Rope), ("rope_tiled", Rope)])
def test_one_setting_each_makes_a_model_of_clips(positions, made):
    jepa = of_clips(f"encoder.positions={positions}", f"predictor.positions={positions}", "tokenizer.tubelet=2")
    parts = jepa.backbone.encoder, jepa.predictor
    assert {type(part.positions) for part in (*parts, jepa.target_backbone.encoder)} == {made}
    tokens = some(2, 72, 18)
    jepa([randn(2, 3, 4, 24, 24)], [Mask(tokens[:, :9], tokens[:, None, 9:])]).total.backward()
    assert all(p.grad is not None for part in parts for p in part.parameters())


def test_what_there_is_not_is_refused_by_name():
    with pytest.raises(ConfigError, match="encoder.positions=sincos is no choice .*there are: sincos_2d, sincos_3d"):
        resolve(["recipe=demo", "encoder.positions=sincos"])
    with pytest.raises(
        ValueError, match="no positions 'sincos_4d' .did you mean 'sincos_[23]d'.*there are: .* rope_tiled"
    ):
        located("sincos_4d", 24, 2)
    with pytest.raises(ValueError, match="no mlp 'swigl' .did you mean 'swiglu'"):
        mlp("swigl", 24, 4.0)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"native": (2, 3, 4)}, r"native=\[2, 3, 4\] is no grid: rows and columns, each at least 1"),
        ({"native": (3,), "positions": "rope"}, "rows and columns, or tubelets before them"),
        ({"native": (0, 3, 4), "positions": "sincos_3d"}, "each at least 1"),
        ({"heads": 6, "positions": "rope"}, "a head has 4, not 6, 8, 10"),
        ({"width": 18, "positions": "rope"}, "a head has 9, not 6, 8, 10"),
    ],
)
def test_what_does_not_fit_is_refused(settings, reason):
    settings = {"width": 24, "depth": 1, "heads": 2, **settings}
    for make in (VitEncoder, partial(VitPredictor, 8)):
        with pytest.raises(ValueError, match=reason):
            make(**settings)


def steps(model: VitEncoder, keep: Tensor) -> tuple[list[Tensor], int]:
    """Gradients of a step with the same draws, and the bytes that autograd kept for it, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep_storage(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    model.zero_grad()
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep_storage, lambda tensor: tensor):
        loss = model(randn(2, KEPT, WIDTH), keep, GRID).square().sum()
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None], sum(s.nbytes() for s in kept.values())


@pytest.mark.parametrize("positions", ["sincos_3d", "rope"])
def test_recomputed_blocks_have_the_same_gradients_and_keep_less(positions):
    keep, found, sizes = some(2, GRID.size, KEPT), {}, {}
    for recompute in (False, True):
        model = encoder(positions, drop_path=0.5, checkpoint_blocks=recompute).train()
        found[recompute], sizes[recompute] = steps(model, keep)
    assert len(found[True]) == len(found[False]) == len([*model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found[True], found[False], strict=True))
    assert sizes[True] < sizes[False] / 4
    with torch.no_grad():
        close(model.eval()(randn(2, KEPT, WIDTH), keep, GRID), encoder(positions)(randn(2, KEPT, WIDTH), keep, GRID))


def test_a_gated_mlp_is_its_formula_and_as_large_as_the_other():
    gated = shaken(mlp("swiglu", 24, 4.0).double())
    w, x = gated.state_dict(), randn(5, 24)
    gate = plain.linear(x, w, "fc1_g")
    close(gated(x), plain.linear(gate / (1 + (-gate).exp()) * plain.linear(x, w, "fc1_x"), w, "fc2"))
    assert [mlp("swiglu", width, 4.0).fc2.in_features for width in (24, 192, 1408)] == [64, 512, 3760]
    sizes = [sum(p.numel() for p in mlp(kind, 384, 4.0).parameters()) for kind in ("gelu", "swiglu")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
    assert "blocks.0.mlp.fc1_g.weight" in encoder("rope", mlp="swiglu").state_dict()


def test_initial_weights_of_v_jepa_2_shrink_with_depth_and_mask_tokens_start_from_zero():
    torch.manual_seed(0)
    settings = {"depth_scaled": True, "mlp": "swiglu"}
    parts = [VitEncoder(96, 4, 3, **settings), VitPredictor(96, 96, 4, 3, zero_mask_tokens=True, **settings)]
    for part in parts:
        for number, block in enumerate(part.blocks, start=1):
            for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
                assert abs(weight.std() * math.sqrt(2 * number) / 0.02 - 1) < 0.05
            for weight in (block.attn.qkv.weight, block.mlp.fc1_g.weight, block.mlp.fc1_x.weight):
                assert abs(weight.std() / 0.02 - 1) < 0.05
    assert not parts[1].mask_token.any() and parts[1].mask_token.requires_grad


def test_a_shared_mask_token_stands_for_every_kind():
    model = shaken(VitPredictor(9, WIDTH, 1, HEADS, positions="rope", share_mask_token=True).double())
    seen, mask = randn(2, KEPT, 9), Mask(some(2, GRID.size, KEPT), some(2, GRID.size, ASKED, seed=1)[:, None])
    assert torch.equal(model(seen, mask._replace(kind=3), GRID), model(seen, mask, GRID))


def test_queries_keys_and_values_may_be_without_bias():
    for part in (VitEncoder(12, 1, 2, qkv_bias=False), VitPredictor(8, 12, 1, 2, qkv_bias=False)):
        assert part.blocks[0].attn.qkv.bias is None and part.blocks[0].attn.proj.bias is not None


def test_a_picture_stands_still_for_a_tubelet():
    tokenizer = shaken(PatchTokenizer(3, 8, patch=4, tubelet=2).double())
    picture, keep = randn(2, 3, 1, 8, 12), some(2, 6, 4)
    assert tokenizer.grid(1, 8, 12) == Grid(1, 2, 3) == tokenizer.grid(2, 8, 12)
    close(tokenizer(picture), tokenizer(picture.repeat(1, 1, 2, 1, 1)))
    close(tokenizer(picture, keep), tokenizer(picture.repeat(1, 1, 2, 1, 1), keep))
    with pytest.raises(ValueError, match="a clip of 3 x 8 x 12"):
        tokenizer.grid(3, 8, 12)
