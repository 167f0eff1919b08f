"""What to make of an audit's counts: tokens that are starved, a context that leans to one side, what is lost.

Noise of sampling raises no warning. A batch's samples share their blocks' sizes, so they say less than as many
independent ones: the variance from batch to batch gives the number that they are worth (Kish's design effect), and
every share is taken with an interval of Wilson's that holds, with ``CONFIDENCE``, for all tokens of the grid at once.
"""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.special import stdtrit
from torch import Tensor

from jepakit.audit import Counts, profiles

CONFIDENCE = 0.999

FEW = 10
"""Batches; fewer say nothing of how much batches differ, so nothing is warned of."""

NEVER = 1 / 20
"""A token that was not met once is never met where even this part of the median share is ruled out."""

RARE = 1 / 4
"""A token with less than this part of the median share is rare. Rectangles reach the corners of a grid from few
places, so that alone is only noted."""

LOPSIDED = 1 / 2
"""A rare token with less than this part of the share of one of its mirror images is starved."""

LEAN = 0.05
"""Difference of the context in two halves of the grid, over their sum, that is worth a warning."""

RULES = {"confidence": CONFIDENCE, "few": FEW, "never": NEVER, "rare": RARE, "lopsided": LOPSIDED, "lean": LEAN}

IN_WORDS = (
    f"never: not met, and {NEVER:g} of the median is ruled out; rare: below {RARE:g} of the median; starved: rare, and "
    f"below {LOPSIDED:g} of a mirror image; leans: halves differ by more than {LEAN:g} of their sum; each with "
    f"{CONFIDENCE:.1%} confidence over all tokens"
)


class Finding(NamedTuple):
    """One line of the verdict. ``rule`` names what was looked at; ``value`` is its size, for other programs."""

    warning: bool
    rule: str
    text: str
    value: float

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"{'warning: ' * self.warning}{self.text}"


def findings(counts: Counts) -> list[Finding]:
    """Everything worth a line, warnings last."""
    found = [*_lengths(counts), *_starved(counts.context, counts.samples, "context")]
    found += [*_starved(counts.target, counts.samples, "target"), *_leaning(counts)]
    if len(counts.kept) < FEW:
        text = f"{len(counts.kept)} batches are too few to warn of anything: it takes {FEW} or more"
        found.append(Finding(False, "few", text, float(len(counts.kept))))
    return sorted(found, key=lambda finding: finding.warning)


def _lengths(counts: Counts) -> Iterator[Finding]:
    size, blocks = counts.grid.size, counts.asked.shape[1]
    if counts.context is None:
        yield Finding(False, "context", "context: the whole view, nothing is cut", 1.0)
    else:
        kept, whole = (float(each.double().mean()) for each in (counts.kept, counts.whole))
        text = f"context: {kept:.1f} of {size} tokens on average ({kept / size:.0%}), {spread(counts.kept)}"
        yield Finding(False, "context", text, kept / size)
        part, error = lost(counts)
        text = f"batch cut: takes {part:.0%} of the context; before it {whole:.1f} tokens, {spread(counts.whole)}"
        text = text if part > error else "batch cut: takes nothing that can be measured"
        yield Finding(False, "lost", text, part if part > error else 0.0)
    asked = f"target: {blocks} block{'s' * (blocks > 1)} of {float(counts.asked.double().mean()):.1f} tokens on average"
    whole = "target: the whole view"
    yield Finding(False, "asked", whole if counts.target is None else f"{asked}, {spread(counts.asked)}", float(blocks))


def lost(counts: Counts) -> tuple[float, float]:
    """The share of the context that the batch cut takes away, and how far it may be off."""
    kept, whole = counts.kept.double(), counts.whole.double()
    return 1 - float(kept.mean() / whole.mean()), math.hypot(margin(kept), margin(whole)) / float(whole.mean())


def margin(values: Float[Tensor, "n"]) -> float:
    """How far the mean of independent numbers may be off (Student's t); infinite for a few."""
    if len(values) < FEW:
        return math.inf
    return float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * float(values.std()) / len(values) ** 0.5


def spread(values: Tensor) -> str:
    """The range of some numbers in words."""
    low, high = int(values.min()), int(values.max())
    return "always the same" if low == high else f"from {low} to {high}"


def bounds(shares: Float[Tensor, "n t h w"], samples: int) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t h w"]]:
    """Between which ends each token's share lies, from ``n`` batches of ``samples``."""
    share, tokens = shares.double().mean(0), shares[0].numel()
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * tokens))
    n = worth(shares, samples)
    centre, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)).sqrt()
    low, high = ((each / (1 + z * z / n)).float() for each in (centre - half, centre + half))
    return low, high


def worth(shares: Float[Tensor, "n t h w"], samples: int) -> float:
    """How many independent samples ``n`` batches of ``samples`` are worth; a few batches no more than one."""
    batches = len(shares)
    if batches < FEW:
        return 1.0
    share = shares.double().mean(0)
    expected = (share * (1 - share) / samples).mean()
    effect = float(shares.double().var(0).mean() / expected) if expected else 1.0
    return batches * samples / max(effect, 1.0)


class Starved(NamedTuple):
    """Which tokens are never met, which far less often than one of their mirror images, which rarely on all sides;
    ``unsure``: not met, and too few samples to tell."""

    never: Bool[Tensor, "t h w"]
    lopsided: Bool[Tensor, "t h w"]
    rare: Bool[Tensor, "t h w"]
    unsure: Bool[Tensor, "t h w"]


def starved(shares: Float[Tensor, "n t h w"], samples: int) -> Starved:
    """Sort tokens out by the rules above."""
    low, high = bounds(shares, samples)
    share = shares.double().mean(0)
    zero, median = share == 0, middle(share)
    never = zero & (high < NEVER * median)
    rare = ~zero & (high < RARE * median)
    mirrored = torch.stack([low.flip(axes) for axes in ((1,), (2,), (1, 2))]).amax(0)
    lopsided = rare & (high < LOPSIDED * mirrored)
    return Starved(never, lopsided, rare & ~lopsided, zero & ~never)


def middle(share: Float[Tensor, "t h w"]) -> float:
    """The median share of the tokens that are met at all."""
    return float(share[share > 0].median())


def _starved(shares: Tensor | None, samples: int, what: str) -> Iterator[Finding]:
    if shares is None:
        return
    found, share = starved(shares, samples), shares.mean(0)
    least = f"in as few as {{:.1%}} of the samples (median {middle(share):.0%})"
    lines = {
        "never": f"never {what}: {{}}",
        "lopsided": f"starved as {what}: {{}}, {least}",
        "rare": f"rarely {'a ' * (what == 'target')}{what}: {{}}, {least}, on all sides alike",
        "unsure": f"not met as {what}: {{}}, in too few batches to tell",
    }
    for rule, line in lines.items():
        tokens = getattr(found, rule)
        if tokens.any():
            text = line.format(named(tokens), float(share[tokens].min()))
            yield Finding(rule in ("never", "lopsided"), f"{rule} {what}", text, float(tokens.sum()))


def named(tokens: Bool[Tensor, "t h w"]) -> str:
    """A set of tokens in words: whole slices, rows and columns by their number, the rest by how many there are."""
    parts, rest = [], tokens.clone()
    for dim, name in enumerate(("time slice", "row", "column")):
        full = _along(tokens, dim, torch.all)
        if tokens.shape[dim] > 1 and full.any() and not full.all():
            parts.append(_slices(name, full))
            rest.movedim(dim, 0)[full] = False
    total, left = int(tokens.sum()), int(rest.sum())
    if left:
        rows = _along(rest, 1, torch.any)
        where = f" in {ranges('row', rows)}" if 2 * int(rows.sum()) < len(rows) else ""
        parts.append(f"{left} {'other ' * bool(parts)}token{'s' * (left > 1)}{where}")
    return " and ".join(parts) + f", {total} tokens" * (left < total)


def _along(tokens: Bool[Tensor, "t h w"], dim: int, reduce: Callable) -> Bool[Tensor, "n"]:
    return reduce(tokens.movedim(dim, 0).flatten(1), 1)


def _slices(name: str, chosen: Bool[Tensor, "n"]) -> str:
    only_last = int(chosen.sum()) == 1 and bool(chosen[-1])
    return f"the last {name} ({len(chosen) - 1})" if only_last else ranges(name, chosen)


def ranges(name: str, chosen: Bool[Tensor, "n"]) -> str:
    """``row 15``, ``rows 0, 1, 13 to 15``."""
    runs: list[list[int]] = []
    for number in chosen.nonzero().flatten().tolist():
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"{name}{'s' * (int(chosen.sum()) > 1)} {', '.join(words)}"


SIDES = {"time": ("early", "late"), "row": ("top", "bottom"), "column": ("left", "right")}
"""The halves of a grid along each of its axes."""


def _leaning(counts: Counts) -> Iterator[Finding]:
    if counts.context is None:
        return
    lines = profiles(counts.context.mean(0))
    for dim, (axis, sides) in enumerate(SIDES.items(), 1):
        if counts.context.shape[dim] < 2:
            continue
        size, error = lean(counts.context, dim)
        line, warns = lines[axis], abs(size) - error > LEAN
        text = f"{(1 + size) / 2:.1%} of the context lies in the {sides[0]} half"
        if warns:
            one, other = (int(line.nonzero()[end]) for end in (0, -1))
            name = "time slice" if axis == "time" else axis
            text = f"context leans to the {sides[size < 0]} half, where {(1 + abs(size)) / 2:.0%} of it lies; "
            text += f"{name} {one} is seen in {line[one]:.1%} of the samples, {name} {other} in {line[other]:.1%}"
        yield Finding(warns, f"lean {axis}", text, size)


def lean(shares: Float[Tensor, "n t h w"], dim: int) -> tuple[float, float]:
    """First half less last half, over their sum, and how far that may be off (infinite for a few batches)."""
    length = shares.shape[dim]
    first, last = (shares.narrow(dim, start, length // 2) for start in (0, length - length // 2))
    first, last = (half.double().flatten(1).mean(1) for half in (first, last))
    total = float((first + last).mean())
    if not total:  # all of it lies in the middle row
        return 0.0, math.inf
    return float((first - last).mean()) / total, margin(first - last) / total
