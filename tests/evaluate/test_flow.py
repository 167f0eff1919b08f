"""Scores of estimated flow: what they count, beside what, and what becomes of them."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from jepakit import evaluate
from jepakit.data.flow import Truth
from jepakit.data.views import alone
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import compare, flow_entry, recorded, sheet
from jepakit.evaluate.data import Part
from jepakit.evaluate.features import Reading, extract
from jepakit.evaluate.flow import EPE, OUTLIERS, Sum, measure, score, tally
from jepakit.evaluate.flow_table import remarks, table
from jepakit.evaluate.motion import Looking, Models, Motion, controls, grey, moving_branch, nothing_moves
from jepakit.jepa import Branched

from .fakes import DATA, Blocks, Stripes
from .pairs import CONFIG, Shifts, Told, figure

PAIRS = Shifts()
SPEEDS = (10.0, 40.0)


def part(source: Shifts = PAIRS) -> Part:
    return Part(source, torch.arange(len(source)), f"{len(source)} samples, the data given")  # type: ignore[arg-type]


def drawn(seed: int = 0, height: int = 9, width: int = 7) -> tuple[torch.Tensor, Truth]:
    """An estimate and a truth by chance."""
    rng = torch.Generator().manual_seed(seed)
    flow, true = 30 * torch.randn(2, 2, height, width, generator=rng)
    known, occluded = torch.rand(2, height, width, generator=rng) < 0.6
    return flow, Truth(true * known, known, occluded)


# What is counted -----------------------------------------------------------------------------------------------------


def test_measures_are_those_of_the_formulas():
    flow, truth = drawn()
    known, occluded, speed = truth.known.numpy(), truth.occluded.numpy(), np.hypot(*truth.flow.numpy())
    error = np.hypot(*(flow - truth.flow).numpy())
    parts = {EPE: known, "non-occluded": known & ~occluded, "occluded": known & occluded, "s0-10": known & (speed < 10)}
    parts |= {"s10-40": known & (speed >= 10) & (speed < 40), "s40+": known & (speed >= 40)}
    found = measure(flow, truth, SPEEDS)
    assert list(found) == [*parts, OUTLIERS]
    for name, where in parts.items():
        assert found[name].pixels == where.sum() > 0
        assert found[name].total == pytest.approx(error[where].sum(), rel=1e-5)
    assert found[OUTLIERS].total == ((error > 3) & (error > 0.05 * speed) & known).sum()


def test_an_outlier_is_off_by_pixels_and_by_a_share():
    true = torch.tensor([[[100.0, 50.0, 1.0, 1.0]], [[0.0] * 4]])
    flow = true + torch.tensor([[[4.0, 4.0, 2.9, 3.1]], [[0.0] * 4]])
    assert measure(flow, Truth(true, torch.ones(1, 4, dtype=torch.bool)), SPEEDS)[OUTLIERS] == Sum(2.0, 4)


def test_what_is_not_known_does_not_count():
    flow, truth = drawn()
    wild = torch.where(truth.known, flow, 1e9)
    assert measure(wild, truth, SPEEDS) == measure(flow, truth, SPEEDS)
    assert "occluded" not in measure(flow, truth._replace(occluded=None), SPEEDS)
    none = measure(flow, truth._replace(known=torch.zeros_like(truth.known)), SPEEDS)
    with pytest.raises(DataError, match="known at none of their pixels"):
        tally([none])


def test_ranges_of_speed_can_be_chosen():
    flow, truth = drawn()
    found = measure(flow, truth, (0.5,))
    assert [name for name in found if name.startswith("s")] == ["s0-0.5", "s0.5+"]
    assert found["s0-0.5"].pixels + found["s0.5+"].pixels == found[EPE].pixels


def test_pixels_count_alike_and_not_pairs():
    own = tally([{EPE: Sum(10.0, 10), "s0-1": Sum(0.0, 0)}, {EPE: Sum(90.0, 30), "s1+": Sum(5.0, 2)}])
    assert own.names == (EPE, "s1+")  # nothing has pixels slower than 1
    found = score(own)
    assert found["score"] == 100 / 40 and found["measures"]["s1+"] == {
        **{"score": 2.5, "pixels": 2},
        **{end: found["measures"]["s1+"][end] for end in ("low", "high")},
    }


def test_intervals_are_those_of_the_same_draws():
    pairs = [drawn(seed) for seed in range(9)]
    best, other = (tally([measure(flow * scale, truth, SPEEDS) for flow, truth in pairs]) for scale in (1.0, 1.5))
    found = score(other, best)
    assert found == score(other, best) and found["low"] < found["score"] < found["high"]
    assert found["pairs"] == 9 and 0 < found["ahead"]["low"] < found["score"] - score(best)["score"]
    assert score(best, best)["ahead"] == {"low": 0.0, "high": 0.0}
    single = score(tally([measure(*pairs[0], SPEEDS)]))
    assert (single["low"], single["high"]) == (None, None)


# Who estimates -------------------------------------------------------------------------------------------------------


def test_who_knows_the_truth_scores_nothing_and_who_says_nothing_the_mean_speed():
    answers = iter([PAIRS.truth(i).flow for i in range(4)])
    read = flow_entry.compare(part(), {"knows": lambda frames: next(answers), "zero flow": nothing_moves}, SPEEDS)
    knows, zero = (score(own) for own in read.rows.values())
    assert knows["score"] == 0 and zero["score"] == 2.5 and knows["measures"][OUTLIERS]["score"] == 0
    assert zero["measures"][OUTLIERS]["score"] == 0.25 and zero["pixels"] == 4 * 15 * 16
    assert read.skipped == []


def test_classical_methods_find_how_noise_shifts():
    found = {name: estimate(PAIRS[1][0]) for name, estimate in controls().items()}
    assert list(found) == ["zero flow", "DIS (medium)", "Farneback"]
    for name, flow in found.items():
        assert flow.shape == (2, 16, 16) and flow.dtype == torch.float32
        middle = flow[:, 4:-4, 4:-6].mean((1, 2))
        assert middle.tolist() == pytest.approx([0, 0] if name == "zero flow" else [2, 0], abs=0.4)
    with pytest.raises(DataError, match="OpenCV refuses frames of"):
        controls()["DIS (medium)"](torch.zeros(3, 2, 6, 6, dtype=torch.uint8))


def test_grey_is_opencvs():
    import cv2

    frame = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    wanted = cv2.cvtColor(frame.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY)
    assert np.abs(grey(frame).astype(int) - wanted).max() <= 1
    assert grey(frame[:1]).tolist() == frame[0].tolist()


def test_the_model_sees_normalised_frames_and_leaves_no_trace():
    predictor = Told(1.5)
    flow = Motion(figure(predictor), CONFIG, Looking())(PAIRS[0][0])
    (first, second), frames = predictor.seen[0], PAIRS[0][0]
    assert flow.shape == (2, 16, 16) and flow[0].eq(1.5).all() and predictor.training
    torch.testing.assert_close(first[0, :, 0], (frames[:, 0] / 255 - 0.5) / 0.25)
    torch.testing.assert_close(second[0, :, 0], (frames[:, 1] / 255 - 0.5) / 0.25)


def test_another_size_is_for_the_model_alone():
    predictor = Told(1.5)
    frames = torch.zeros(3, 2, 32, 64, dtype=torch.uint8)
    flow = Motion(figure(predictor), CONFIG, Looking(size=16))(frames)
    assert predictor.seen[0][0].shape == (1, 3, 1, 16, 32)
    assert flow.shape == (2, 32, 64) and flow[0].eq(3).all()  # in pixels of the frames as they were


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            torch.zeros(1, 2, 8, 8),
            ConfigError,
            r"predictor 'told': its flow is \(1, 2, 8, 8\) for frames of \(16, 16\)",
        ),
        (torch.full((1, 2, 16, 16), math.nan), DataError, "not finite"),
        (ValueError("too small"), ConfigError, "predictor 'told': too small"),
    ],
)
def test_what_a_predictor_may_not_answer(answer, error, message):
    def flow(*_):
        if isinstance(answer, Exception):
            raise answer
        return answer

    predictor = Told()
    predictor.flow = flow  # type: ignore[method-assign]
    with pytest.raises(error, match=message):
        Motion(figure(predictor), CONFIG, Looking())(PAIRS[0][0])


def test_the_branch_that_infers_motion_is_found():
    still, moving = figure(nn.Identity()), figure(Told())
    assert moving_branch(CONFIG, moving) == ("", moving)
    both = Branched({"content": still, "motion": moving}, {"content": ["predictor"], "motion": ["predictor"]})
    assert moving_branch(CONFIG, both) == ("motion", moving)
    with pytest.raises(ConfigError, match="needs a predictor that infers motion .* this run has 'told'"):
        moving_branch(CONFIG, still)


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder whose trained model says one pixel to the right; its untrained one says three to the left."""
    models = Models(*(Motion(figure(Told(right)), CONFIG, Looking()) for right in (1.0, -3.0)), 7)
    monkeypatch.setattr(flow_entry, "load", lambda run, config, how: models)
    monkeypatch.setattr("jepakit.runs.open_run", lambda path: type("Run", (), {"config": CONFIG}))
    monkeypatch.setattr("jepakit.evaluate.data.open_source", lambda data: PAIRS)
    monkeypatch.setattr("jepakit.evaluate.data.override", lambda config, given: config["data"] | given)
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    return tmp_path


def test_a_run_is_scored_beside_its_controls(run, capsys):
    assert evaluate.command(run, {"protocol": "flow", "speeds": "[2.5]", "pictures": 1}) == 0
    out = capsys.readouterr().out
    for words in ("trained model", "untrained model", "zero flow", "DIS", "Farneback", "occluded", "s0-2.5", "s2.5+"):
        assert words in out
    assert "960 known pixels of 4 pairs" in out and "s10-40" not in out and (run / "pictures/flow.png").is_file()
    (path,) = (run / "evaluate").glob("flow-*.json")
    found = json.loads(path.read_text())
    assert json.loads((run / "evaluate/results.jsonl").read_text()) == found
    assert found["protocols"]["flow"]["version"] == 1 and found["protocols"]["flow"]["speeds"] == [2.5]
    cells = {row["name"]: row["flow"] for row in found["rows"]}
    assert [cells[name]["score"] for name in ("trained model", "untrained model", "zero flow")] == [1.5, 5.5, 2.5]
    assert cells["zero flow"]["ahead"]["low"] == pytest.approx(1, abs=0.5) and "ahead" not in cells["trained model"]
    assert found["step"] == 7 and found["label"] == "shifts" and found["test"]["text"].startswith("4 pairs")


def test_pairs_that_cannot_be_measured_are_listed(run, capsys, monkeypatch):
    monkeypatch.setattr("jepakit.evaluate.data.open_source", lambda data: Shifts(bad=(1,), mute=(3,)))
    assert evaluate.command(run, {"protocol": "flow", "pictures": 0}) == 0
    out = capsys.readouterr().out
    assert "known pixels of 2 pairs" in out and "2 pairs could not be measured; first: shift 1: made so" in out
    assert not (run / "pictures").exists()
    monkeypatch.setattr("jepakit.evaluate.data.open_source", lambda data: Shifts(mute=(0, 1, 2, 3)))
    with pytest.raises(DataError, match="none of 4 pairs can be measured; first: shift 0: nobody tells its true flow"):
        evaluate.command(run, {"protocol": "flow"})


def test_without_opencv_it_says_how_to_get_the_rows(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert list(controls()) == ["zero flow"]
    evaluate.command(run, {"protocol": "flow", "pictures": 0})
    out = capsys.readouterr().out
    assert "DIS" not in out and "pip install 'jepakit[flow]'" in out and "zero flow" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speeds": "[4,2]"}, "speeds=.*: each must be greater"),
        ({"speeds": "[0,2]"}, "above 0"),
        ({"size": 0}, "size=0: it must be above 0"),
        ({"limitt": 3}, "did you mean 'limit'"),
        ({"k": 3}, "unknown option 'k'"),
        ({"weights": "teacher"}, "target, online"),
    ],
)
def test_mistakes_are_named(run, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate.command(run, {"protocol": "flow", **options})


def test_data_that_tell_no_motion_are_refused(run, monkeypatch):
    monkeypatch.setattr("jepakit.evaluate.data.open_source", lambda data: Stripes())
    with pytest.raises(ConfigError, match="data=shifts has no pairs of frames with true flow"):
        evaluate.command(run, {"protocol": "flow"})


def test_other_protocols_lead_here(run):
    with pytest.raises(DataError, match="unlabelled .* protocol=flow scores motion"):
        evaluate.command(run, {"protocol": "knn"})


def test_no_better_than_a_control_is_said(run):
    evaluate.command(run, {"protocol": "flow", "pictures": 0})
    found = json.loads((run / "evaluate/results.jsonl").read_text())
    said = [line for line in remarks(found) if "NOT clearly better" in line]
    assert len(said) == 2 and "DIS" in said[0] and "Farneback" in said[1]
    assert table(found).records[0][EPE] == 1.5


def test_scores_stand_beside_others(run, capsys):
    for given in ({}, {"root": "other/sintel"}):
        evaluate.command(run, {"protocol": "flow", "pictures": 0, "data": given})
    runs = recorded.read([run])
    published = [{"measure": "Sintel clean EPE, px", "score": 2.81, "source": "a paper", "when": {}}]
    found = compare.compare(runs, published)
    assert [word for word in found.header if word.startswith("flow")] == [
        "flow (target, shifts) px",
        "flow (target, shifts sintel) px",
    ]
    assert found.records[0]["flow (target, shifts)"] == 1.5
    assert found.records[0]["flow (target, shifts) zero flow occluded"] == pytest.approx(3)
    text = "\n".join(found.remarks)
    assert "lower is better" in text and "NOT clearly better than a control" in text and "Sintel clean EPE" in text
    assert "2.81 [1]" in found.rows[0]
    capsys.readouterr()
    sheet.show(found)
    assert "zero" in capsys.readouterr().out


def test_frames_are_encoded_one_by_one_where_they_were_so_trained():
    assert alone({"views": {"a": {"frame": 0}, "b": {"frame": 1}}})
    assert not alone({"views": {"a": {"frame": 0}, "b": {"frame": None}}}) and not alone({"views": {}})
    reading = Reading(DATA | {"size": 16}, label=None, alone=True)
    both = extract(Blocks(), PAIRS, reading).x  # type: ignore[arg-type]

    class One(Shifts):
        def __getitem__(self, index):
            return super().__getitem__(index)[0][:, self.frame : self.frame + 1], {}

    ends = []
    for frame in (0, 1):
        source = One()
        source.frame = frame
        ends.append(extract(Blocks(), source, reading).x)  # type: ignore[arg-type]
    torch.testing.assert_close(both, torch.stack(ends).mean(0))
