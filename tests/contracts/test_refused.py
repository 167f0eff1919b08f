"""What cannot work is refused before training, in one line that names the part and the reason."""

import pytest
import torch

VIT = "encoder 'vit', predictor 'vit_predictor'"

REFUSED = {
    "no room": (
        {"masker": {"name": "multiblock"}, "tokenizer": {"name": "patch", "patch": 8}},
        "masker 'multiblock': no room on a grid of 2 x 2: a block of * has not more than min_keep=10",
    ),
    "no room, now and then": ({"masker": {"name": "moody"}}, "masker 'moody': no room today"),
    "patch": (
        {"data": {"size": 30}},
        "tokenizer 'patch': a clip of 1 x 30 x 30 (frames, height, width) cannot be cut into boxes of 1 x 4 x 4",
    ),
    "clips for pictures' masker": (
        {"masker": {"name": "multiblock"}, "data": {"frames": 2}},
        "masker 'multiblock': multiblock masks single frames, the grid is 2 x 4 x 4",
    ),
    "pictures for clips' masker": (
        {"masker": {"name": "two_tubes"}},
        "masker 'two_tubes': tubes need more than one frame of tokens, the grid is 1 x 4 x 4",
    ),
    "no positions, encoder": (
        {"data": {"frames": 2}},
        "encoder 'vit' does not go with masker 'halves', tokenizer 'patch', predictor 'vit_predictor', anti_collapse "
        "ema: 2-D positions know no time, the grid is 2 x 4 x 4",
    ),
    "no positions, predictor": (
        {"data": {"frames": 2}, "encoder": {"name": "any_grid"}},
        "predictor 'vit_predictor' does not go with masker 'halves', tokenizer 'patch', encoder 'any_grid', "
        "anti_collapse ema: 2-D positions know no time, the grid is 2 x 4 x 4",
    ),
    "mask kind": (
        {"data": {"frames": 2}, "masker": {"name": "two_tubes"}, "encoder": {"name": "any_grid"}},
        "predictor 'vit_predictor' does not go with masker 'two_tubes', tokenizer 'patch', encoder 'any_grid', "
        "anti_collapse ema: *",
    ),
    "pyramid": (
        {"encoder": {"name": "pyramid"}, "tokenizer": {"name": "uncut"}, "masker": {"name": "couple"}},
        "predictor 'vit_predictor' does not go with masker 'couple', tokenizer 'uncut', encoder 'pyramid', "
        "anti_collapse ema: vit_predictor reads tokens, the encoder gives a pyramid of 3 levels",
    ),
    "two teachers": (
        {"anti_collapse": {"ema": {"name": "ema"}, "still": {"name": "still"}}},
        "anti_collapse: ema and still each say what the target features are, only one can answer",
    ),
    "a teacher and pixels": (  # a patch of 4 x 4 x 3 numbers: also where both are of one width
        {
            "anti_collapse": {"ema": {"name": "ema"}, "pixels": {"name": "pixels"}},
            "encoder": {"name": "vit", "width": 48, "depth": 1, "heads": 2},
        },
        "anti_collapse: ema and pixels each say what the target features are, only one can answer",
    ),
    "no answer": (
        {"anti_collapse": {"guard": {"name": "guard"}}},
        "anti_collapse guard does not go with masker 'halves', tokenizer 'patch', " + VIT + ": none of the strategies "
        "says what the target features are; add one that answers",
    ),
    "no strategy": (
        {"anti_collapse": {}},
        "anti_collapse (none) does not go with masker 'halves', tokenizer 'patch', " + VIT + ": none of the strategies "
        "says what the target features are; add one that answers",
    ),
    "distance": (
        {"distance": "smooth_l2"},
        "unknown distance 'smooth_l2' (did you mean 'smooth_l1'?); known: smooth_l1, l2, l1",
    ),
    "heads": (
        {"encoder": {"name": "vit", "width": 16, "depth": 1, "heads": 3}},
        "encoder 'vit': width 16 cannot be split over 3 heads",
    ),
    "no heads at all": ({"encoder": {"name": "vit", "heads": 0, "depth": 1}}, "encoder 'vit': *zero"),
    "unknown argument": (
        {"predictor": {"name": "vit_predictor", "widht": 8}},
        "predictor 'vit_predictor': *unexpected keyword argument 'widht'*",
    ),
    "contract": (
        {"masker": {"name": "overlapping"}},
        "masker 'overlapping' breaks its contract: context and target share 32 tokens, and the masker does not say "
        "overlaps = True",
    ),
    "shape of the guess": (
        {"predictor": {"name": "flat"}, "masker": {"name": "halves"}},
        "these parts do not go together (masker 'halves', tokenizer 'patch', encoder 'vit', predictor 'flat', "
        "anti_collapse ema): *",
    ),
    "unknown name": ({"encoder": {"name": "vitt"}}, "no encoder is named 'vitt' (did you mean 'vit'?); there are: *"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(config, case):
    import fnmatch

    from jepakit.build import build
    from jepakit.errors import ConfigError

    changes, expected = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        build(config(**changes))
    line = str(caught.value)
    pattern = expected.replace("[", "[[]")
    assert fnmatch.fnmatchcase(line, pattern) and "\n" not in line, line


def test_what_fits_is_built(config):
    from jepakit.build import build
    from jepakit.types import Grid

    before = torch.get_rng_state()
    built = build(config())
    assert built.grid == Grid(1, 4, 4) and built.figures[""].views == 1
    assert torch.equal(before, torch.get_rng_state())
    assert not any(parameter.is_meta for parameter in built.jepa.parameters())


def test_the_same_seed_gives_the_same_weights(config):
    from jepakit.build import build

    one, same, other = (build(config(seed=seed)).jepa.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_several_views_are_built_for_those_who_give_them(config, tmp_path):
    from jepakit.build import build
    from jepakit.errors import ConfigError
    from jepakit.options import EvaluateOptions, LoggerOptions, OptimOptions, TrainerOptions
    from jepakit.train import Trainer

    nodes = {"tokenizer": "uncut", "masker": "couple", "encoder": "pooled", "predictor": "same"}
    made = config(**{kind: {"name": name} for kind, name in nodes.items()}, anti_collapse={"own": {"name": "own"}})
    assert build(made).figures[""].views == 2
    options = {"optim": OptimOptions(), "trainer": TrainerOptions(), "logger": LoggerOptions()}
    made |= {key: vars(each) for key, each in options.items()} | {"evaluate": vars(EvaluateOptions()), "recipe": None}
    with pytest.raises(ConfigError, match="^masker 'couple' asks for 2 views of a sample, the data gives 1$"):
        Trainer(made, tmp_path)
    assert not list(tmp_path.iterdir())
