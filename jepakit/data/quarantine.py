"""The samples that a run could not read: written down once each, and too many of them end the run."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jepakit.data.loader import evaluation_batches
from jepakit.distributed import first, place
from jepakit.errors import DataError
from jepakit.protocols import Source

NAME = "quarantine.jsonl"
TOGETHER = 8
"""Samples that are read at once when it is asked whether they can be read by now."""


class Quarantine:
    """A list that survives the run: one JSON object a line with index, path, reason and what took the sample's place.

    Args:
        folder: the run's folder, in which the list lies.
        budget: share of the data set that may be unreadable.
        total: samples in the data set.
        name: of the list.
    """

    def __init__(self, folder: Path, budget: float, total: int, name: str = NAME):
        self.file, self.budget, self.total = Path(folder) / name, budget, total
        self._known = {entry["path"] for entry in read(self.file)}

    def __len__(self) -> int:
        """Different samples that could not be read so far, those of earlier parts of the run included."""
        return len(self._known)

    def add(self, replaced: Iterable[Mapping[str, Any]]) -> None:
        """Write down what was not known yet (``Batch.replaced``): all processes know it, the first one writes. Raises
        DataError beyond the budget."""
        found = {entry["path"]: dict(entry) for entry in replaced}
        new = [entry for path, entry in found.items() if path not in self._known]
        if new and place().first:
            self._write(new)
        self._known |= found.keys()
        if found and len(self) > self.budget * self.total:
            last = (new or list(found.values()))[-1]
            raise DataError(
                f"{len(self):,} of {self.total:,} samples ({len(self) / self.total:.1%}) could not be read, more than "
                f"data.max_bad={self.budget:g} allows; the last one: {last['path']}: {last['reason']}; all so far are "
                f"listed in {self.file}, and `jepakit data check data.root=...` lists them before a run; mend or "
                "remove them, or raise data.max_bad, and the run goes on"
            )

    def look_again(self, source: Source, options: Mapping[str, Any]) -> None:
        """Before a run goes on for which too many are listed, read those once more, as ``options`` of data say.

        What has been mended or removed counts no longer, until it cannot be read again. Raises DataError, in all
        processes, where it is still more than the budget allows.
        """

        def look() -> set[str]:
            if len(self) > self.budget * self.total:
                listed = {entry["index"] for entry in read(self.file)} & set(range(len(source)))
                each = evaluation_batches(source, {**options, "batch_size": TOGETHER}, indices=sorted(listed))
                found = [entry for batch in each for entry in batch.replaced if entry["index"] in listed]
                self._known &= {entry["path"] for entry in found}
                self.add(found)
            return self._known

        self._known = first(look)

    def _write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        whole = not self.file.exists() or self.file.read_bytes()[-1:] in (b"", b"\n")
        with self.file.open("a", encoding="utf-8") as file:
            file.write("" if whole else "\n")  # the line before was cut off when the run was killed
            file.writelines(json.dumps(entry) + "\n" for entry in entries)


def read(file: Path) -> list[dict[str, Any]]:
    """The entries of a list; none where there is no file. A line that was cut off is left out: it comes again."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries
