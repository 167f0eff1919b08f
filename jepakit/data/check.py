"""``jepakit data check``: read every sample once, before a run does, and say what is there and what is wrong."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from jepakit.data import BadSample, open_source, read_options
from jepakit.data.workers import items, workers
from jepakit.protocols import Source

CHUNK = 16
"""Samples that a worker reads between two reports."""
FEW = 20
"""Kinds of which each is listed."""


class Seen(NamedTuple):
    """What became of one sample: its path and the ``reason`` why it is bad, or what it is."""

    path: str
    reason: str
    format: str = ""
    size: tuple[int, int] = (0, 0)
    label: int | None = None


@dataclass
class Report:
    """What was counted."""

    good: int = 0
    bad: list[Seen] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, seen: Seen) -> None:
        """Count one sample."""
        if seen.reason:
            self.bad.append(seen)
            return
        self.good += 1
        self.sizes[seen.size] += 1
        if seen.format:
            self.formats[seen.format] += 1
        if seen.label is not None:
            self.classes[seen.label] += 1


class Reader(Dataset):
    """The source, with errors as values; motion and maps are read too, where they are known. Spawn-safe."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Seen:
        try:
            picture, labels = self.source[index]
            kind = self.source.format(index) if hasattr(self.source, "format") else ""
            if hasattr(self.source, "truth"):
                self.source.truth(index)  # its own files may be damaged
            for name in getattr(self.source, "maps", ()):
                self.source.map(index, name)
        except BadSample as bad:
            return Seen(bad.path, bad.reason)
        height, width = picture.shape[-2:]
        return Seen(self.source.describe(index), "", kind, (width, height), labels.get("class"))


def command(data: Mapping[str, Any]) -> int:
    """Check the source of ``config["data"]`` and what it holds out. Returns 0 if all is well, 1 if a sample is bad."""
    source, count, console = open_source(data), workers(read_options(data).workers), Console(soft_wrap=True)
    bad = show(source, check(source, count, console), console)
    held_out = source.held_out_source() if getattr(source, "held_out", None) else None
    if held_out is not None:
        console.print("\nheld out:", highlight=False)
        bad += show(held_out, check(held_out, count, console), console)
    return 1 if bad else 0


def check(source: Source, count: int, console: Console) -> Report:
    """Read every sample in ``count`` processes; progress is shown on a terminal."""
    report = Report()
    loader = DataLoader(Reader(source), batch_size=CHUNK, num_workers=count, collate_fn=list)
    shown = track(
        items(loader), "reading", len(loader), console=console, transient=True, disable=not console.is_terminal
    )
    for seen in itertools.chain.from_iterable(shown):
        report.add(seen)
    return report


def show(source: Source, report: Report, console: Console) -> int:
    """Print what was found, the bad samples last. Returns their number."""
    names = source.classes.get("class", ())
    console.print(source.describe_all() if hasattr(source, "describe_all") else f"{len(source):,} samples")
    sizes = Counter({f"{width} x {height}": n for (width, height), n in report.sizes.items()})
    classes = Counter({name: report.classes[label] for label, name in enumerate(names)})
    for title, counts in (("formats", report.formats), ("sizes", sizes), ("classes", classes)):
        if counts:
            console.print(f"{title}: {listed(counts)}", highlight=False, markup=False)
    if report.bad:
        console.print(f"bad: {len(report.bad):,} of {len(source):,} ({len(report.bad) / len(source):.2%})")
    for seen in report.bad:
        console.print(f"  {seen.path}: {seen.reason}", highlight=False, markup=False)
    if not report.bad:
        console.print("bad: none")
    return len(report.bad)


def listed(counts: Counter[str]) -> str:
    """The most frequent first; of many kinds the two ends."""
    ranked = [f"{name} {n:,}" for name, n in counts.most_common()]
    if len(ranked) <= FEW:
        return ", ".join(ranked)
    return f"{len(ranked):,} kinds: {', '.join(ranked[: FEW // 2])}, ..., {', '.join(ranked[-3:])}"
