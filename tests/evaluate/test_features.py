import pytest
import torch

from jepakit.errors import DataError
from jepakit.evaluate.features import Reading, check_label, extract, raw_pixels, samples, split

from .fakes import DATA, Blocks, Stripes

READING = Reading(DATA)


def test_the_same_samples_in_the_same_order_however_they_are_batched():
    rows = samples(200, 50)
    one = extract(Blocks(), Stripes(), READING, rows)
    two = extract(Blocks(), Stripes(), Reading(DATA | {"batch_size": 7, "workers": 1}), rows)
    assert torch.equal(one.index, rows) and torch.equal(two.index, rows)
    assert torch.equal(one.y, rows % 3) and torch.equal(two.y, rows % 3)
    torch.testing.assert_close(one.x, two.x)


def test_features_are_the_mean_token_without_dropout():
    backbone = Blocks().train()
    found = extract(backbone, Stripes(4), READING)
    pixels = torch.stack([Stripes(4)[i][0] for i in range(4)]) / 255
    torch.testing.assert_close(found.x, backbone.eval()((pixels - 0.5) / 0.25).mean(1))
    assert found.x.dtype == torch.float32 and not found.x.requires_grad


def test_bf16_is_close_and_still_gives_float32():
    fp32, bf16 = (extract(Blocks(), Stripes(9), Reading(DATA, precision=p)).x for p in ("fp32", "bf16"))
    assert bf16.dtype == torch.float32 and not torch.equal(fp32, bf16)
    torch.testing.assert_close(fp32, bf16, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_leaves_no_trace(workers):
    backbone = Blocks().train()
    backbone.drop.eval()
    before, reading = torch.random.get_rng_state(), Reading(DATA | {"workers": workers})
    extract(backbone, Stripes(20), reading)
    raw_pixels(Stripes(20), reading)
    assert torch.equal(before, torch.random.get_rng_state())
    assert backbone.training and not backbone.drop.training and backbone.weight.grad is None
    assert torch.is_grad_enabled()


def test_a_backbone_that_fails_leaves_no_trace_either():
    backbone = Blocks().train()
    backbone.weight.data = backbone.weight.data[:, :5]
    with pytest.raises(RuntimeError):
        extract(backbone, Stripes(20), READING)
    assert backbone.training and torch.is_grad_enabled()


def test_bad_samples_are_left_out_and_named():
    found = extract(Blocks(), Stripes(20, bad=(3, 7)), READING)
    assert found.index.tolist() == [i for i in range(20) if i not in (3, 7)]
    assert found.skipped == ("stripes 0/3: made so", "stripes 0/7: made so")
    with pytest.raises(DataError, match="could not be read"):
        extract(Blocks(), Stripes(2, bad=(0, 1)), READING)


def test_missing_labels_are_named():
    with pytest.raises(DataError, match="unlabelled"):
        extract(Blocks(), Stripes(labelled=False), READING)
    with pytest.raises(DataError, match="did you mean 'class'"):
        check_label(Stripes(), "clas")
    assert (extract(Blocks(), Stripes(5, labelled=False), READING._replace(label=None)).y == -1).all()


def test_raw_pixels_are_the_picture_itself_and_of_a_clip_its_ends():
    found = raw_pixels(Stripes(3), READING, side=8)
    torch.testing.assert_close(found.x, torch.stack([Stripes(3)[i][0] for i in range(3)]).flatten(1) / 255)

    class Odd(Stripes):
        def __getitem__(self, index):
            return torch.full((3, 4, 5 + index, 30 - index), index, dtype=torch.uint8), {"class": 0}

    assert raw_pixels(Odd(9), READING, side=4).x.shape == (9, 3 * 2 * 4 * 4)


def test_a_split_is_disjoint_and_complete():
    for count in (2, 3, 10, 1001):
        fit, test = split(count)
        assert sorted(torch.cat([fit, test]).tolist()) == list(range(count)) and len(fit) and len(test)
    with pytest.raises(DataError, match="1 samples cannot be divided"):
        split(1)
