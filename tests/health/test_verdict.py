"""What is said of a run, rule by rule, on logs that are made up."""

import math

import pytest

from jepakit.health.collapse import penalties
from jepakit.health.verdict import ILL, verdict
from jepakit.health.watch import Watch


def line(step=0, loss=1.0, parts=(), **more):
    """A line as the trainer writes one, of healthy features."""
    figures = {"std": 0.5, "std_raw": 0.5, "rank": 20.0, "sample_cosine": 0.5, "cosine": 0.9, "cosine_mean": 0.5}
    figures |= {f"target_{name}": figures[name] for name in ("std", "std_raw", "rank", "sample_cosine")}
    figures |= {"target_grad": 0.0, **{f"spectrum/{2**i}": 0.1 for i in range(6)}}
    changed = {name: more.pop(name) for name in list(more) if name in figures}
    return {"step": step, "loss": loss, **dict(parts), "grad_norm": 1.0, "lr": 1e-3, **more, **figures, **changed}


def old(rank, std=0.5, **more):
    """A line of a log from before there were more figures."""
    return {"loss": 1.0, "rank": rank, "std": std, "cosine": 0.9, "cosine_mean": 0.5} | more


def course(ranks, **more):
    return [{"step": i} | old(rank, **more) for i, rank in enumerate(ranks)]


def shrinking(*names, **more):
    return [line(**{name: 0.5 * 0.8**i for name in names}, **more) for i in range(12)]


GONE = {"std": 0.05, "rank": 4.0, "sample_cosine": 0.995}
BOTH = GONE | {f"target_{name}": value for name, value in GONE.items()}
PENALTIES = (("distance", 0.1), ("variance", 0.3), ("covariance", 0.1))
FLAT = {"rank": 6.0, "target_rank": 6.0}


APART = [line(std=0.5, target_std=0.1, target_grad=1.0, parts=PENALTIES)] * 5
"""The context's features are held up; those of whole views are all alike."""


@pytest.mark.parametrize(("away", "kind"), [(0.05, "EMA too fast"), (0.7, "learning rate too high")])
def test_a_teacher_that_is_far_away_did_not_follow_too_quickly(away, kind):
    found = verdict([line(**BOTH, teacher_distance=away, step_length=0.005)] * 5)
    assert found.word in ILL and found.kind == kind
    assert ("70% of its norm away" in found.cause) == (away > 0.5)


@pytest.mark.parametrize(
    ("history", "word", "reason"),
    [
        (course([14.0] * 12), "healthy", "effective rank 14.0"),
        (course([14.0] * 6 + [7.0] * 6), "watch", "50% of its first 14.0"),
        (course([14.0] * 6 + [3.0] * 6), "collapsing", "few directions are left: effective rank 3.0"),
        (course([14.0] * 6 + [3.0] + [14.0] * 5), "healthy", "effective rank 14.0"),
        (course([140.0] * 6 + [30.0] * 6), "watch", "21% of its first 140.0"),
        (course([14.0] * 8, std=1e-4), "collapsing", "nearly the same features: std 0.0001, effective rank"),
        (course([14.0] * 12, cosine=0.4), "watch", "no closer than the mean token"),
        (course([14.0] * 3, cosine=0.4), "healthy", "effective rank"),
        (course([14.0] * 12) + [{"step": 12, "loss": math.nan}], "collapsing", "not finite at step 12"),
        (course([14.0] * 3) + [{"step": 3, "loss": math.inf}] + course([14.0] * 3), "watch", "not finite"),
        (course([14.0] * 5) + [{"step": 5, "loss": None, "std": 0.5, "rank": 20.0}], "collapsing", "at step 5"),
        ([{"step": 0, "knn": 0.3}], "watch", "no health figures"),
        ([], "watch", "no health figures"),
        ([line()] * 5, "healthy", "effective rank 20.0"),
        ([line(**BOTH)], "collapsing", "mean cosine 0.9950, effective rank 4.0"),
        ([line()] * 5 + [line(**BOTH)] * 2, "collapsing", "nearly the same features"),
        ([line()] * 5 + [line(**BOTH)], "healthy", "effective rank"),
        ([line(rank=9.0, **{k: v for k, v in BOTH.items() if k != "rank"})] * 5, "collapsing", "mean cosine"),
        ([line(**BOTH | {"rank": 60.0})] * 5, "healthy", "effective rank 60.0"),
        ([line()] * 5 + [line(**GONE)] * 5, "watch", "20% of its first"),
        ([line()] * 5 + [line(**FLAT)] * 5, "collapsing", "few directions are left"),
        ([line()] * 5 + [line(rank=6.0)] * 5, "watch", "30% of its first"),
        ([line(rank=2.0)] * 5, "collapsing", "few directions are left"),
        ([{k: v for k, v in line(rank=2.0).items() if k != "spectrum/16"}] * 5, "healthy", "effective rank 2.0"),
        ([line(rank=0.0)] * 5, "collapsing", "few directions"),
        ([line(target_grad=1.0)] * 5, "watch", "effective rank 20.0"),
        ([line(target_grad=1.0, parts=PENALTIES)] * 5, "healthy", "effective rank 20.0"),
        (APART, "collapsing", "the answers grow alike, what is seen does not: std 0.100 and 0.500"),
        ([line(std=0.5, target_std=0.1)] * 5, "healthy", "effective rank 20.0"),  # a teacher's are its own
        (shrinking("std_raw", "target_std_raw"), "collapsing", "shrink to a point: std_raw 0.0537, 13% of its first"),
        (shrinking("std_raw", "target_std_raw", target_grad=1.0), "collapsing", "shrink to a point"),
        (shrinking("std_raw", "target_std_raw", parts=PENALTIES), "healthy", "effective rank 20.0"),
        (shrinking("std_raw"), "healthy", "effective rank 20.0"),
        ([old(14.0, std_raw=each["std_raw"]) for each in shrinking("std_raw")], "healthy", "effective rank 14.0"),
    ],
)
def test_rules(history, word, reason):
    found = verdict(history)
    assert found.word == word and reason in found.reason
    assert not (found.cause and word == "healthy")


CONFIG = {
    "anti_collapse": {"slow": {"name": "teacher", "start": 0.5, "normalise": True, "mask": "output"}, "held": {}},
    "distance_weight": 25.0,
    "optim": {"lr": 0.01, "clip": None},
}


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([line(**BOTH, target_grad=1.0)] * 5, ["nothing keeps features apart", "anti_collapse=[slow,held]"]),
        ([line(**BOTH)] * 5, ["follow what learns too quickly", "anti_collapse.slow.start=0.5", "optim.lr=0.01"]),
        (
            [line(**BOTH, target_grad=1.0, parts=PENALTIES)] * 5,
            ["variance and covariance did not hold, at 40% of the loss", "distance_weight=25.0"],
        ),
        (
            [line(step=i) for i in range(5)] + [line(step=i, **BOTH, grad_norm=30.0) for i in range(5, 10)],
            ["30 times what it had been at step 5", "optim.lr=0.01 or set optim.clip"],
        ),
        (APART, ["hold up what is seen, and not the answers (anti_collapse=[slow,held]", "(of=truth)"]),
        (shrinking("std_raw", "target_std_raw"), ["follow what learns too quickly"]),
        ([line()] * 5 + [line(**GONE | {"std": 0.001})] * 5, ["the answers still differ", "optim.lr=0.01"]),
        ([line(step=3, loss=None)], ["steps are too long", "optim.lr=0.01"]),
    ],
)
def test_likely_causes(history, told):
    found = verdict(history, CONFIG)
    assert found.word == "collapsing" and all(words in found.cause for words in told)
    assert str(found).splitlines() == [f"collapsing: {found.reason}", f"likely cause: {found.cause}"]
    bare = verdict(history)
    assert bare.cause and "anti_collapse" not in bare.cause and "0.01" not in bare.cause


def test_a_gradient_that_dies_with_the_features_did_not_jump():
    dying = [line(step=i, **(BOTH if i > 4 else {}), grad_norm=0.4 * 0.5**i) for i in range(20)]
    assert "too quickly" in verdict(dying).cause


def test_an_old_log_has_a_verdict_and_no_cause():
    assert verdict(course([14.0] * 6 + [2.0] * 6), CONFIG).cause == ""
    assert str(verdict(course([14.0] * 5))).startswith("healthy: effective rank")


def test_penalties_of_a_line():
    assert penalties(line()) == {} and penalties({"step": 1}) == {}
    assert penalties(line(parts=PENALTIES)) == {"variance": 0.3, "covariance": 0.1}
    several = line(parts=(("image/loss", 1.0), ("image/distance", 0.9), ("image/variance", 0.1), ("clip/loss", 1.0)))
    assert penalties(several) == {"image/variance": 0.1}


def test_what_is_said_while_a_run_goes_on():
    watch = Watch(CONFIG)
    said = [watch(line(step=i)) for i in range(5)] + [watch(line(step=i, **BOTH)) for i in range(5, 9)]
    assert [bool(each) for each in said] == [False] * 6 + [True] + [False] * 2
    assert said[6].startswith("collapsing: ") and "\nlikely cause: answers follow" in said[6]
    wavering = [
        watch(line(rank=11.0, target_rank=11.0)),
        watch(line(rank=11.0, target_rank=11.0)),
    ]  # to be watched: neither one nor the other
    back = [watch(line()) for _ in range(3)]
    assert not any(wavering) and [each[:7] for each in back if each] == ["healthy"]
    assert not Watch(CONFIG, [line(**BOTH)])(line(**BOTH)), "it was said before the run went on"


def test_what_a_line_costs_does_not_grow_with_the_run():
    watch = Watch({}, [{"step": 0, "knn": 0.1}, *[line(step=i, rank=20.0 + i) for i in range(300)]])
    short = Watch({})
    for step in range(300, 430):
        watch(line(step=step))
        short(line(step=step))
        assert len(short.lines) == min(step - 299, len(watch.lines))
    assert len(watch.lines) < 150 and [each["step"] for each in watch.lines[:3]] == [0, 1, 2]
    assert watch.lines[-1]["step"] == 429 and len({each["step"] for each in watch.lines}) == len(watch.lines)
