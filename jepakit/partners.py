"""``jepakit plugins --matrix``: which components go together, what never does, and why."""

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jepakit import listing
from jepakit.errors import ConfigError
from jepakit.matrix import KINDS, Combination, Trial, axes, build_all, combinations, together
from jepakit.plugins import Plugins

STRATEGY = "anti_collapse"

Parts = frozenset[tuple[str, str]]
"""Some kinds, and a name of each."""


class Never(NamedTuple):
    """A name of each kind in ``parts``, whichever, together are refused whatever the other parts are, and no fewer of
    them are. ``who`` refused and the ``reason`` are those of one of them."""

    parts: dict[str, frozenset[str]]
    who: str
    reason: str

    def __str__(self) -> str:
        return " with ".join(f"{kind}={','.join(sorted(names))}" for kind, names in self.parts.items())


def command(found: Plugins, words: Sequence[str]) -> int:
    """Build the matrix, of ``kind=name,name`` in ``words`` only those names, and print it."""
    names = axes(found, _only(words))
    alone = _watched(build_all(found, combinations(names)), len(list(combinations(names))))
    beside = list(together(found, alone))
    print(_count(alone), end="\n\n")
    rows = [(f"{kind}={name}", *cells.values()) for (kind, name), cells in partners(names, alone, beside).items()]
    listing.table(("", *KINDS), rows)
    refused = [*never(alone), *never(beside)]
    print("\nWhat never goes together, and why; all else does." if refused else "\nAll go together.")
    for each in refused:
        print(f"\n  {each}\n    {each.who}{': ' * bool(each.who)}{each.reason}")
    return 0


def never(trials: Iterable[Trial]) -> list[Never]:
    """Why what is refused is refused: as few and as small choices of parts as can be, such that a combination works
    unless it has one of them."""
    trials = list(trials)
    smallest = _smallest([each.combination for each in trials], [v.combination for v in trials if v.works])
    kept = _needed(smallest, [each for each in trials if not each.works])
    alike: dict[tuple[str, ...], list[Never]] = {}
    for parts, refused in kept.items():
        # the reason where nothing else is wrong with a combination, best of all one of its own parts'
        first = min(refused, key=lambda v: (sum(each <= _parts(v.combination) for each in kept), not _blamed(v, parts)))
        made = Never({kind: frozenset([name]) for kind, name in sorted(parts, key=_place)}, first.who, first.reason)
        alike.setdefault((*made.parts, _said(made)), []).append(made)
    return [each for group in alike.values() for each in _merged(group)]


def partners(
    names: Mapping[str, Sequence[str]], alone: Iterable[Trial], beside: Iterable[Trial]
) -> dict[tuple[str, str], dict[str, str]]:
    """For each part and kind the names that go with it in one combination at least; of strategies against collapse
    those that it can stand beside."""
    pairs = {pair for each in alone if each.works for pair in itertools.permutations(_parts(each.combination), 2)}
    for each in beside:
        if each.works:
            one, other = ((STRATEGY, name) for name in each.combination.anti_collapse.split("+"))
            pairs |= {(one, other), (other, one)}
    return {
        (kind, name): {
            column: _cell([other for other in there if ((kind, name), (column, other)) in pairs], _others(there, name))
            if column != kind or kind == STRATEGY
            else "-"
            for column, there in names.items()
        }
        for kind in names
        for name in names[kind]
    }


def _smallest(asked: list[Combination], working: list[Combination]) -> list[Parts]:
    """The parts that no working combination has together, and of which no fewer are that."""
    smallest: list[Parts] = []
    for count in range(1, len(KINDS) + 1):
        for places in itertools.combinations(range(len(KINDS)), count):
            there, fine = (
                dict.fromkeys(frozenset((KINDS[place], each[place]) for place in places) for each in some)
                for some in (asked, working)
            )
            lost = (parts for parts in there if parts not in fine)
            smallest += [parts for parts in lost if not any(fewer < parts for fewer in smallest)]
    return smallest


def _needed(smallest: list[Parts], refused: list[Trial]) -> dict[Parts, list[Trial]]:
    """Those without which not all that is refused would be explained, and what each explains. What no part of its own
    has refused is left out first."""
    explained = {parts: [each for each in refused if parts <= _parts(each.combination)] for parts in smallest}
    for parts in sorted(smallest, key=lambda parts: any(_blamed(each, parts) for each in explained[parts])):
        others = [each for each in explained if each != parts]
        if all(any(each <= _parts(trial.combination) for each in others) for trial in explained[parts]):
            del explained[parts]
    return explained


def _blamed(trial: Trial, parts: Parts) -> bool:
    """Whether it was one of these parts that refused."""
    return any(trial.who.startswith(f"{kind} {name!r}") for kind, name in parts)


def _merged(alike: list[Never]) -> list[Never]:
    """As few as can be: two that differ in the names of one kind are one."""
    for one, other in itertools.combinations(alike, 2):
        apart = [kind for kind in one.parts if one.parts[kind] != other.parts[kind]]
        if len(apart) == 1:
            joined = one._replace(parts=one.parts | {apart[0]: one.parts[apart[0]] | other.parts[apart[0]]})
            return _merged([joined, *(each for each in alike if each not in (one, other))])
    return alike


def _said(never: Never) -> str:
    """What is said, without the numbers and names that differ from one refusal to the next."""
    names = "|".join(re.escape(each) for some in never.parts.values() for name in some for each in name.split("+"))
    return re.sub(rf"\d+|\b({names})\b", "*", f"{never.who}: {never.reason}")


def _parts(combination: Combination) -> Parts:
    return frozenset(zip(KINDS, combination, strict=True))


def _place(part: tuple[str, str]) -> int:
    return KINDS.index(part[0])


def _others(names: Sequence[str], name: str) -> list[str]:
    return [each for each in names if each != name]


def _cell(going: Sequence[str], there: Sequence[str]) -> str:
    """Some of the names that there are, in as few words as can be."""
    lost = [name for name in there if name not in going]
    if not going or not lost:
        return "all" if going else "-"
    return f"all but {', '.join(lost)}" if len(lost) < len(going) else ", ".join(going)


def _count(trials: Iterable[Trial]) -> str:
    """How many work, and on which data."""
    data: dict[tuple[str, ...], list[str]] = {}
    for each in trials:
        data.setdefault(each.combination[1:], []).extend([each.combination.data] * each.works)
    ways = Counter(" and ".join(on) for on in data.values() if on)
    how = "; ".join(f"{count} on {on}" for on, count in ways.items())
    return f"{ways.total()} of {len(data)} combinations work" + f": {how}" * bool(how)


def _only(words: Sequence[str]) -> dict[str, list[str]]:
    """``masker=tubes,random`` as names by kind."""
    found: dict[str, list[str]] = {}
    for word in words:
        kind, _, names = word.partition("=")
        if kind in found:
            raise ConfigError(f"{kind} is given twice; several names are written {kind}=NAME,NAME")
        found[kind] = names.split(",")
    return found


def _watched(trials: Iterator[Trial], total: int) -> list[Trial]:
    """All of them, without what was built, while a terminal shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    shown = {"total": total, "console": Console(stderr=True), "transient": True, "disable": not sys.stderr.isatty()}
    return [each._replace(built=None) for each in track(trials, "building", **shown)]
