import math

import torch

from jepakit.evaluate import Monitor, Reading

from .fakes import DATA, Blocks, Stripes

READING = Reading(DATA)


def test_scores_with_held_out_data_and_controls():
    monitor = Monitor(Stripes(), Stripes().held_out_source(), READING, limit=100)
    assert [len(part.rows) for part in monitor.parts] == [50, 50]
    found, controls = monitor(Blocks(1)), monitor.controls(Blocks(2))
    assert set(found) == {"knn", "rankme", "alpha_req"} and set(controls) == {"knn_random", "knn_pixels"}
    assert 0.5 < found["knn"] <= 1 < found["rankme"] <= Blocks.width
    assert monitor(Blocks(1)) == found and monitor.controls(Blocks(1))["knn_random"] == found["knn"]


def test_training_goes_on_to_the_last_bit_as_if_nobody_had_looked():
    def losses(monitor):
        torch.manual_seed(0)
        backbone, found = Blocks().train(), []
        optimiser = torch.optim.SGD(backbone.parameters(), 0.01, momentum=0.9)
        for _ in range(5):
            loss = backbone(torch.randn(4, 3, 1, 8, 8)).square().mean()
            loss.backward()
            optimiser.step()
            found.append(loss.item())
            if monitor:
                monitor(backbone)
        return found

    assert losses(None) == losses(Monitor(Stripes(), None, READING, limit=60))


def test_a_split_where_nothing_is_held_out():
    monitor = Monitor(Stripes(), None, READING, limit=100)
    fit, test = (set(part.rows.tolist()) for part in monitor.parts)
    assert len(fit) == len(test) == 50 and not fit & test
    assert "knn" in monitor(Blocks())


def test_labelled_held_out_data_of_an_unlabelled_training():
    held_out = Stripes(80, seed=3)
    monitor = Monitor(Stripes(labelled=False), held_out, READING)
    assert all(part.source is held_out for part in monitor.parts) and "knn" in monitor(Blocks())


def test_without_labels_there_is_only_the_rank():
    monitor = Monitor(Stripes(labelled=False), None, READING)
    assert set(monitor(Blocks())) == {"rankme", "alpha_req", "lidar"} and monitor.controls(Blocks()) == {}


def test_a_diverged_encoder_scores_not_a_number_and_raises_nothing():
    backbone = Blocks()
    backbone.weight.data.fill_(torch.nan)
    assert all(math.isnan(value) for value in Monitor(Stripes(), None, READING)(backbone).values())
