"""A step does at most 2 % more products of matrices than its numbers cannot be had without.

That minimum is written down here. Only tokens that are kept are embedded; a block answers for all of its tokens, but
the last one of teacher and predictor, which owe keys and values of all of them, and queries, projection and MLP of
those that are asked for, each once; the context is narrowed once for all blocks of a mask. The backward pass is twice
the forward pass of what is trained, less the gradient of the pixels.

It leaves out what is no product of matrices, and one saving: as they enter the predictor, tokens of the context are the
same for all blocks of a mask, and so are their queries, keys and values in its first block (half a per cent of
ViT-B/16; nothing in video, where a mask has one block). What is done beyond it: answers of the teacher for tokens that
two blocks ask for, or for all of them where several masks share a view.

Models are as wide as in the papers, and some of them less deep, so that last blocks are more of them.
"""

from typing import Any

import pytest
import torch

from jepakit.config import resolve
from jepakit.plan import count
from jepakit.types import Mask

MARGIN = 1.02
STEPS = {
    "I-JEPA ViT-B/16": ["recipe=ijepa_vitb16"],
    "I-JEPA ViT-H/14": ["recipe=ijepa_vith14", "encoder.depth=8", "predictor.depth=4"],
    "V-JEPA ViT-L/16": ["recipe=vjepa_vitl16", "encoder.depth=4", "predictor.depth=2"],
    "V-JEPA 2 ViT-L/16": ["recipe=vjepa2_vitl16", "encoder.depth=4", "predictor.depth=2"],
}


def block(tokens: float, asked: float, width: int) -> float:
    """Keys and values of all tokens; queries, projection and MLP of those that are asked for, who look at all."""
    square = 2 * width * width  # a token times a square matrix
    return 2 * square * tokens + (2 + 8) * square * asked + 4 * width * tokens * asked


def stack(tokens: float, asked: float, width: int, depth: int) -> float:
    """Blocks, of which the last one alone need not answer for all."""
    return (depth - 1) * block(tokens, tokens, width) + block(tokens, asked, width)


def minimum(config: dict[str, Any], masks: list[Mask], whole: int, all_asked: bool = False) -> float:
    """Of a step with these masks, on views of ``whole`` tokens; with ``all_asked`` last blocks are as all others."""
    wide, narrow, cut = config["encoder"], config["predictor"], config["tokenizer"]
    embed = 2 * 3 * cut["tubelet"] * cut["patch"] ** 2 * wide["width"]
    narrow_down = 2 * wide["width"] * narrow["width"]
    total = 0.0
    for row in range(len(masks[0].context)):
        asked = len(torch.cat([mask.target[row].flatten() for mask in masks]).unique())
        total += whole * embed + stack(whole, whole if all_asked else asked, wide["width"], wide["depth"])
    for mask in masks:
        (rows, kept), (_, count, asked) = mask.context.shape, mask.target.shape
        encoder = kept * embed + stack(kept, kept, wide["width"], wide["depth"])
        tokens = kept + asked
        answered = stack(tokens, tokens if all_asked else asked, narrow["width"], narrow["depth"])
        predictor = narrow_down * kept + count * (answered + narrow_down * asked)
        total += rows * (3 * (encoder + predictor) - kept * embed)
    return total


@pytest.mark.parametrize("name", STEPS)
def test_a_step_does_little_more_than_it_must(name, monkeypatch):
    config, typical, drawn = resolve([*STEPS[name], "data.batch_size=4"], complete=False), count._typical, []
    monkeypatch.setattr(count, "DRAWS", 1)
    monkeypatch.setattr(count, "_typical", lambda *given: drawn.append(typical(*given)) or drawn[-1])
    found = count.step(config)
    least, simple = (minimum(config, *drawn, found.tokens["target"], each) for each in (False, True))
    print(f"{name}: {found.flops / least - 1:.2%} above, {simple / least - 1:.2%} without choosing")
    assert least <= found.flops <= MARGIN * least < simple
