"""What is read off the matrix: partners, and as few reasons as explain all that is refused."""

from jepakit import matrix, partners
from jepakit.cli import main
from jepakit.matrix import KINDS, Combination, Trial
from jepakit.plugins import discover


def trials(*refused: tuple[str, str, str], **names: str) -> list[Trial]:
    """Of all combinations those that have all of some words are refused; each of ``refused`` is words, who and why."""
    every = {kind: ["x"] for kind in KINDS} | {kind: list(some) for kind, some in names.items()}
    found = []
    for each in matrix.combinations(every):
        held = f" {each} "
        why = (rest for words, *rest in refused if all(f" {word} " in held for word in words.split()))
        found.append(Trial(each, None, *next(why, ("", ""))))
    return found


def said(found: list[Trial]) -> list[str]:
    return [f"{each}: {each.reason}" for each in partners.never(found)]


def test_the_smallest_choice_that_is_refused():
    assert said(trials(("masker=a", "masker 'a'", "never"), masker="ab")) == ["masker=a: never"]
    found = trials(("masker=a encoder=c data=p", "encoder 'c'", "no"), masker="ab", encoder="cd", data="pq")
    assert said(found) == ["data=p with encoder=c with masker=a: no"]


def test_what_a_smaller_one_explains_is_left_out():
    found = trials(
        ("tokenizer=t encoder=c", "encoder 'c'", "other tokens"),
        ("tokenizer=u encoder=d", "encoder 'd'", "other tokens"),
        ("encoder=c masker=a", "encoder 'c'", "wholes"),
        tokenizer="tu",
        encoder="cd",
        masker="ab",
    )
    expected = ["tokenizer=t with encoder=c", "tokenizer=u with encoder=d", "encoder=c with masker=a"]
    assert [str(each) for each in partners.never(found)] == expected
    assert [each.reason for each in partners.never(found)] == ["other tokens", "other tokens", "wholes"]


def test_alike_ones_are_one():
    found = trials(
        ("masker=a data=q", "masker 'a'", "a masks frames, not 2 x 4"),
        ("masker=b data=q", "masker 'b'", "b masks frames, not 8 x 8"),
        ("masker=c data=q", "masker 'c'", "something else"),
        masker="abcd",
        data="pq",
    )
    assert said(found) == ["data=q with masker=a,b: a masks frames, not 2 x 4", "data=q with masker=c: something else"]


def test_reasons_explain_all_that_is_refused_and_nothing_else(whole):
    reasons = [{(kind, n) for kind, some in e.parts.items() for n in some} for e in partners.never(whole.alone)]
    kinds = [set(each.parts) for each in partners.never(whole.alone)]
    for trial in whole.alone:
        parts = set(zip(KINDS, trial.combination, strict=True))
        held = [len(parts & each) == len(there) for each, there in zip(reasons, kinds, strict=True)]
        assert any(held) != trial.works, trial
    assert len(reasons) < 20


def test_partners(whole):
    cells = partners.partners(matrix.axes(discover()), whole.alone, whole.beside)
    assert cells["masker", "multiblock"] == {
        "data": "pictures",
        "tokenizer": "all but whole",
        "encoder": "vit",
        "masker": "-",
        "predictor": "vit_predictor",
        "anti_collapse": "all",
    }
    assert cells["anti_collapse", "ema"]["anti_collapse"] == "all but frozen, pixels, stopgrad"
    assert cells["encoder", "timm"]["masker"] == "itself, mean, next, pair"


def test_the_command_prints_them(capsys):
    asked = "masker=pair,multiblock encoder=vit tokenizer=patch anti_collapse=vicreg,pixels data=pictures"
    asked += " predictor=vit_predictor,identity"
    assert main(["plugins", "--matrix", *asked.split()]) == 0
    out, err = capsys.readouterr()
    assert not err and out.startswith("5 of 8 combinations work: 5 on pictures\n\n")
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].split() for line in out.splitlines() if "=" in line}
    assert rows["masker=multiblock"] == ["all", "all", "all", "-", "vit_predictor", "all"]
    assert rows["predictor=identity"] == ["all", "all", "all", "pair", "-", "vicreg"]
    assert "\n  masker=multiblock with predictor=identity\n    predictor 'identity': identity says again" in out
    assert "\n  predictor=identity with anti_collapse=pixels\n" in out


def test_the_command_where_nothing_is_refused(capsys):
    asked = "masker=pair encoder=vit tokenizer=patch anti_collapse=ema predictor=identity data=clips"
    assert main(["plugins", "--matrix", *asked.split()]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("1 of 1 combinations work: 1 on clips\n") and out.endswith("\nAll go together.\n")


def test_a_kind_is_given_once(capsys):
    assert main(["plugins", "--matrix", "masker=pair", "masker=mean"]) == 2
    assert "masker is given twice; several names are written masker=NAME,NAME" in capsys.readouterr().err


def test_a_combination_reads_like_a_command_line():
    assert str(Combination(*"abcdef")) == "data=a tokenizer=b encoder=c masker=d predictor=e anti_collapse=f"
