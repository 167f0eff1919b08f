"""Bad samples are written down once, and too many end the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jepakit.data import BadSample
from jepakit.data.quarantine import NAME, Quarantine, read
from jepakit.distributed import joined
from jepakit.errors import DataError
from tests.data.test_loader import OPTIONS
from tests.distributed.forked import together


def entry(index: int) -> dict:
    return {"index": index, "path": f"/data/{index}.jpg", "reason": "empty file", "replaced_by": 99}


def test_each_is_written_once(tmp_path):
    quarantine = Quarantine(tmp_path, 0.5, 10)
    quarantine.add([])
    assert not (tmp_path / NAME).exists()
    quarantine.add([entry(1), entry(2), entry(1)])
    quarantine.add([entry(2), entry(3)])
    assert read(tmp_path / NAME) == [entry(1), entry(2), entry(3)] and len(quarantine) == 3


def test_a_resumed_run_goes_on_counting_even_after_a_cut_line(tmp_path):
    Quarantine(tmp_path, 0.5, 10).add([entry(1), entry(2)])
    whole = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(whole[:-10])
    resumed = Quarantine(tmp_path, 0.5, 10)
    assert len(resumed) == 1
    resumed.add([entry(1), entry(2), entry(3)])
    assert len(resumed) == 3 and [e["index"] for e in read(tmp_path / NAME)] == [1, 2, 3]
    assert json.loads((tmp_path / NAME).read_text().splitlines()[-1]) == entry(3)


def test_the_budget_is_a_share_of_the_data(tmp_path):
    quarantine = Quarantine(tmp_path, 0.2, 10)
    quarantine.add([entry(1), entry(2)])
    with pytest.raises(DataError) as caught:
        quarantine.add([entry(3)])
    text = str(caught.value)
    assert "\n" not in text
    for part in ("3 of 10", "30.0%", "data.max_bad=0.2", str(tmp_path / NAME), "/data/3.jpg: empty file", "data check"):
        assert part in text
    assert len(read(tmp_path / NAME)) == 3


def test_no_budget_at_all(tmp_path):
    with pytest.raises(DataError):
        Quarantine(tmp_path, 0.0, 1000).add([entry(1)])


class Some:
    """``count`` tiny pictures in files, of which some cannot be read."""

    def __init__(self, bad: set[int], count: int = 10):
        self.bad, self.count, self.classes = bad, count, {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if index in self.bad:
            raise BadSample(self.describe(index), "still empty")
        return torch.zeros(3, 1, 16, 16, dtype=torch.uint8), {}

    def describe(self, index: int) -> str:
        return f"/data/{index}.jpg"


def stopped(folder: Path, count: int = 4) -> Quarantine:
    """Of a run that was stopped because ``count`` of its 10 samples are bad, and goes on with a budget of 2."""
    with pytest.raises(DataError):
        Quarantine(folder, 0.0, 10).add(map(entry, range(1, count + 1)))
    return Quarantine(folder, 0.2, 10)


def test_a_run_that_was_stopped_is_refused_for_as_long_as_nothing_has_changed(tmp_path):
    whole = None
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            stopped(tmp_path).look_again(Some({1, 2, 3, 4, 7}), OPTIONS)
        text = str(caught.value)
        assert text.startswith("4 of 10 samples (40.0%) could not be read, more than data.max_bad=0.2 allows; the last")
        assert ".jpg: still empty; all so far" in text and "mend or remove them, or raise data.max_bad" in text
        whole = whole or (tmp_path / NAME).read_bytes()
        assert (tmp_path / NAME).read_bytes() == whole and len(read(tmp_path / NAME)) == 4


@pytest.mark.parametrize("source", [Some({2, 4}), Some({2}, count=3)])
def test_what_was_mended_or_removed_counts_no_longer(source, tmp_path):
    """Until it is met again: then it is listed once more."""
    quarantine = stopped(tmp_path)
    quarantine.look_again(source, OPTIONS)
    assert len(quarantine) == len(source.bad) and len(read(tmp_path / NAME)) == 4
    quarantine.budget = 1.0
    quarantine.add([entry(1), entry(2)])
    assert len(quarantine) == len(source.bad | {1}) and read(tmp_path / NAME)[4:] == [entry(1)]


def test_within_the_budget_nothing_is_read_again(tmp_path):
    quarantine = stopped(tmp_path)
    quarantine.budget = 0.4
    quarantine.look_again(Some(set()), OPTIONS)  # which would find all of them mended
    assert len(quarantine) == 4


def of_two(folder: Path) -> None:
    """Two processes of one run: a line from each for every time that it was refused."""

    def task(rank: int) -> None:
        with joined("cpu"), (folder / f"said-{rank}").open("w") as said:
            try:
                Quarantine(folder, 0.2, 10).add(map(entry, (1, 2, 3, 4)))
            except DataError as error:
                said.write(f"{error}\n")
            for bad in ({1, 2, 3, 4} - {rank}, {1, 2}):  # the first process speaks for both
                quarantine = Quarantine(folder, 0.2, 10)
                try:
                    quarantine.look_again(Some(bad), OPTIONS)
                    said.write(f"{len(quarantine)} bad\n")
                except DataError as error:
                    said.write(f"{error}\n")

    assert together(2, task) == [0, 0]


def test_processes_agree_and_one_of_them_writes(tmp_path):
    command = (
        f"from pathlib import Path; from tests.data.test_quarantine import of_two; of_two(Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, other = (tmp_path.joinpath(f"said-{rank}").read_text().splitlines() for rank in range(2))
    assert one == other and [line[:5] for line in one] == ["4 of ", "4 of ", "2 bad"]
    assert [e["index"] for e in read(tmp_path / NAME)] == [1, 2, 3, 4]
