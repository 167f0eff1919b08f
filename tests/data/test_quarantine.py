"""Bad samples are written down once, and too many end the run."""

import json

import pytest

from jepakit.data.quarantine import NAME, Quarantine, read
from jepakit.errors import DataError


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
