"""What cannot work is one line that names the reason, and where there is one the nearest choice."""

import pytest
import torch
from jepakit_timm.encoder import TimmEncoder
from jepakit_timm.whole import Whole
from safetensors.torch import save_file

from jepakit.jepa import Backbone

ARGUMENTS = {
    "timm has no model 'resnet51'": {"model": "resnet51"},
    "did you mean 'convnext_small'": {"model": "convnext_smal"},
    "timm has no model 'hf-hub:someone/model'": {"model": "hf-hub:someone/model"},
    r"test_resnet has no argument 'zero_init_lst' \(did you mean 'zero_init_last'": {
        "model_args": {"zero_init_lst": 1}
    },
    "pretrained=True: there is no such file; nothing is downloaded": {"pretrained": "True"},
    "layers=.* is for gives=pyramid or both, not for gives=pooled": {"layers": (1,)},
    "head=5 is for gives=pooled or both, not for gives=tokens": {"gives": "tokens", "head": 5},
    "expander=.* not for gives=pyramid": {"gives": "pyramid", "expander": (5,)},
    "token_expander=.* is for gives=both": {"token_expander": (5,)},
    "it does not give 'pyramid' at 160 pixels": {"gives": "pyramid", "layers": (9,)},
}


@pytest.mark.parametrize("line", ARGUMENTS)
def test_arguments(line):
    with pytest.raises(ValueError, match=line) as caught:
        TimmEncoder(**{"model": "test_resnet"} | ARGUMENTS[line])
    assert "\n" not in str(caught.value)


def test_a_part_of_a_picture():
    backbone = Backbone(Whole(32), TimmEncoder(model="test_resnet", gives="tokens"))
    pixels, some = torch.randn(2, 3, 1, 64, 64), torch.zeros(2, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="test_resnet encodes whole pictures and cannot be shown 1 of 4 tokens"):
        backbone(pixels, some)


@pytest.mark.parametrize(
    ("stride", "gives", "line"),
    [
        (None, "tokens", "gives 4 tokens, the grid has 1 tokens; tokenizer=whole tokenizer.stride=32"),
        (16, "tokens", "gives 4 tokens, the grid has 16 tokens; tokenizer=whole tokenizer.stride=32"),
        (32, "pooled", "gives one vector a frame, the grid has 4 tokens; tokenizer=whole tokenizer.stride=null"),
    ],
)
def test_another_grid(stride, gives, line):
    with pytest.raises(ValueError, match=line):
        Backbone(Whole(stride), TimmEncoder(model="test_resnet", gives=gives))(torch.randn(2, 3, 1, 64, 64))


def test_sizes():
    with pytest.raises(ValueError, match="a picture of 98 x 98 pixels cannot be cut into boxes of stride=32"):
        Whole(32).grid(1, 98, 98)
    with pytest.raises(ValueError, match="stride=0"):
        Whole(0)
    with pytest.raises(AssertionError, match="Input height"):
        Backbone(Whole(), TimmEncoder(model="test_vit", model_args={"dynamic_img_size": False}))(
            torch.randn(2, 3, 1, 64, 64)
        )


def test_tokens_that_are_vectors():
    encoder = TimmEncoder(model="test_resnet")
    with pytest.raises(ValueError, match="eats the pixels themselves"):
        encoder(torch.randn(2, 1, 96), None, Whole().grid(1, 8, 8))


def test_weights_that_do_not_fit(tmp_path):
    state = TimmEncoder(model="test_resnet").body.model.state_dict()
    name = "layer1.0.conv1.weight"
    short = state[name][:1].clone()
    less = {key: value for key, value in state.items() if key != name}
    cases = {
        f"the file lacks {name}": less,
        "the model has no place for other.weight": state | {"other.weight": torch.ones(1)},
        f"the file has another shape for {name}": state | {name: short},
    }
    for number, (line, content) in enumerate(cases.items()):
        save_file(content, tmp_path / f"{number}.safetensors")
        with pytest.raises(ValueError, match=line):
            TimmEncoder(model="test_resnet", pretrained=str(tmp_path / f"{number}.safetensors"))
    with pytest.raises(ValueError, match="the folder holds 3 files with weights; nothing is downloaded"):
        TimmEncoder(model="test_resnet", pretrained=str(tmp_path))
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no weights of timm's"):
        TimmEncoder(model="test_resnet", pretrained=str(tmp_path / "broken.pth"))
