"""Batches depend on seed, epoch and index alone; workers come, go and die without a trace or with a clear one."""

import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from jepakit.data.colour import COLUMN, How
from jepakit.data.folder import Folder
from jepakit.data.loader import Loader, evaluation_batches
from jepakit.data.mix import permutation
from jepakit.data.samples import MAX_TRIES, Samples, collate
from jepakit.data.views import RandomView
from jepakit.data.workers import MAX_WORKERS, workers
from jepakit.data.world import World
from jepakit.errors import ConfigError, DataError
from jepakit.types import Batch
from tests.data.make import Numbers, labelled

OPTIONS = {"batch_size": 4, "size": 8, "workers": 0, "flip": True, "name": "ignored", "root": "ignored"}


def same(one: Batch, other: Batch) -> bool:
    equal = torch.equal(one.index, other.index) and one.replaced == other.replaced
    return (
        equal
        and all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
        and one.labels.keys() == other.labels.keys()
        and all(torch.equal(one.labels[k], other.labels[k]) for k in one.labels)
    )


def all_same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_batches(tmp_path, count):
    source = Folder(str(labelled(tmp_path)))
    (tmp_path / "cat" / "3.png").write_bytes(b"broken")
    alone = list(Loader(source, OPTIONS, seed=5).batches(0, 7))
    assert any(batch.replaced for batch in alone)
    assert all_same(alone, list(Loader(source, OPTIONS | {"workers": count}, seed=5).batches(0, 7)))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_batches_can_begin_anywhere(start):
    loader = Loader(World(length=12, side=9), OPTIONS, seed=1)
    whole = list(loader.batches(0, 8))
    assert len(loader) == 3 and len(whole) == 8
    assert all_same(whole[start:], list(loader.batches(start, 8)))
    assert list(loader.batches(4, 4)) == []


def test_an_epoch_takes_each_sample_once_and_the_next_in_another_order():
    loader = Loader(Numbers(10), OPTIONS | {"batch_size": 5}, seed=0)
    indices = [batch.index.tolist() for batch in loader.batches(0, 4)]
    assert sorted(indices[0] + indices[1]) == sorted(indices[2] + indices[3]) == list(range(10))
    assert indices[:2] != indices[2:]
    other = [batch.index.tolist() for batch in Loader(Numbers(10), OPTIONS | {"batch_size": 5}, seed=1).batches(0, 2)]
    assert other != indices[:2]


def test_views_of_a_sample_differ_between_epochs():
    loader = Loader(World(length=4, side=16), OPTIONS, seed=0)
    first, second = loader.batches(0, 2)
    assert not torch.equal(first.views[0][first.index.argsort()], second.views[0][second.index.argsort()])


def test_ranks_share_a_step():
    alone = Loader(Numbers(17), OPTIONS | {"batch_size": 8}, seed=3)
    ranks = [Loader(Numbers(17), OPTIONS, seed=3, rank=rank, world=2) for rank in (0, 1)]
    for whole, *parts in zip(alone.batches(0, 5), *(rank.batches(0, 5) for rank in ranks), strict=True):
        assert torch.equal(whole.index, torch.cat([part.index for part in parts]))
        assert torch.equal(whole.views[0], torch.cat([part.views[0] for part in parts]))


def test_what_a_batch_holds():
    batch = next(Loader(Numbers(8), OPTIONS, seed=0).batches(0, 1))
    assert batch.views[0].shape == (4, 3, 1, 8, 8) and batch.views[0].dtype == torch.float32
    assert torch.equal(batch.labels["number"], batch.index) and batch.labels["number"].dtype == torch.int64
    assert torch.equal(batch.labels["half"], batch.index / 2) and batch.labels["half"].dtype == torch.float32
    grey = batch.index.view(-1, 1, 1, 1, 1) / 255
    expected = (grey - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1, 1
    )
    torch.testing.assert_close(batch.views[0], expected.expand(-1, -1, -1, 8, 8))


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(Loader(World(length=8, side=9), OPTIONS | {"workers": 1}, seed=0).batches(0, 2))
    assert torch.equal(before, torch.get_rng_state())


def test_bad_samples_are_replaced_by_readable_ones_and_listed():
    bad = frozenset({2, 5, 6})
    batches = list(Loader(Numbers(8, bad), OPTIONS, seed=0).batches(0, 2))
    replaced = [entry for batch in batches for entry in batch.replaced]
    assert {entry["index"] for entry in replaced} == bad
    assert all(len(batch.index) == 4 and not bad & set(batch.index.tolist()) for batch in batches)
    for entry in replaced:
        assert entry["path"] == f"number {entry['index']}" and entry["reason"] == "bad on purpose"
        assert entry["replaced_by"] in set(range(8)) - bad


def test_a_chain_of_bad_samples_is_listed_whole():
    samples = Samples(Numbers(6, frozenset(range(6)) - {3}), (), seed=0)
    (picture,), labels, index, replaced = samples.read(0)
    order = [i for i in permutation(6, 0, "replace", 0).tolist() if i != 0]
    assert index == 3 and labels["number"] == 3 and picture[0, 0, 0, 0] == 3
    assert [entry["index"] for entry in replaced] == [0, *order[: order.index(3)]]
    assert all(entry["replaced_by"] == 3 for entry in replaced)


@pytest.mark.parametrize("count", [0, 1])
def test_when_nothing_can_be_read_it_says_so_in_one_line(count):
    loader = Loader(Numbers(MAX_TRIES * 9, frozenset(range(MAX_TRIES * 9))), OPTIONS | {"workers": count}, seed=0)
    with pytest.raises(DataError, match=r"^\d+ samples in a row could not be read, .*bad on purpose$"):
        list(loader.batches(0, 1))


def test_too_few_samples():
    with pytest.raises(DataError, match="has 7 samples, fewer than the 8 of one batch; give data.batch_size=3 "):
        Loader(Numbers(7), OPTIONS, seed=0, world=2)


def test_channels_must_fit():
    with pytest.raises(ConfigError, match="data.mean has 1 channels, the pictures have 3"):
        Loader(World(length=9), OPTIONS | {"mean": [0.5], "std": [0.5]}, seed=0)


def test_evaluation_takes_all_in_order(tmp_path):
    source = Folder(str(labelled(tmp_path)))
    batches = list(evaluation_batches(source, OPTIONS | {"batch_size": 5}))
    assert [len(batch.index) for batch in batches] == [5, 5, 2]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(12))
    assert torch.cat([batch.labels["class"] for batch in batches]).tolist() == [0] * 6 + [1] * 6
    some = list(evaluation_batches(source, OPTIONS | {"workers": 1}, indices=[7, 3]))
    assert some[0].index.tolist() == [7, 3]
    assert torch.equal(some[0].views[0][1], batches[0].views[0][3])


def test_what_travels_has_eight_bits_and_one_size(tmp_path):
    parts = collate([Loader(Folder(str(labelled(tmp_path))), OPTIONS, seed=0)._stream._samples[0, i] for i in range(4)])
    assert [(pixels.dtype, pixels.shape) for pixels in parts.pixels] == [(torch.uint8, (4, 3, 1, 8, 8))]
    assert all(pixels.is_contiguous() for pixels in parts.pixels)


def test_several_views():
    views = (RandomView(8, (0.3, 1.0), (1.0, 1.0)), RandomView(4, (0.1, 0.3), (1.0, 1.0), flip=True))
    samples = Samples(World(length=5, side=16), views, seed=0)
    parts = collate([samples[0, i] for i in range(5)])
    assert [pixels.shape for pixels in parts.pixels] == [(5, 3, 1, 8, 8), (5, 3, 1, 4, 4)]
    assert [how.shape for how in parts.how] == [(5, len(How._fields))] * 2 and not parts.how[0][
        :, COLUMN["mirrored"]
    ].any()


def test_what_a_worker_gets_can_be_sent_to_a_new_process(tmp_path):
    for source in (Folder(str(labelled(tmp_path))), World(length=5, side=9)):
        samples = Samples(source, (RandomView(8, (0.3, 1.0), (1.0, 1.0)),), seed=0)
        copy = pickle.loads(pickle.dumps(samples))
        assert torch.equal(copy[1, 2][0].pieces[0], samples[1, 2][0].pieces[0])


def test_workers_left_open():
    assert workers(0) == 0 and workers(20) == 20 and 1 <= workers(None) <= MAX_WORKERS


def test_closing_ends_the_workers():
    before = set(multiprocessing.active_children())
    batches = Loader(World(length=8, side=9), OPTIONS | {"workers": 2}, seed=0).batches(0, 1000)
    next(batches)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    batches.close()
    for process in started:
        process.join(20)
        assert not process.is_alive()


def test_a_dead_worker_is_an_error_and_no_hang():
    loader = Loader(Numbers(64, deadly=frozenset({40})), OPTIONS | {"workers": 2}, seed=0)
    with pytest.raises(DataError, match=r"^DataLoader worker.* (killed|unexpectedly|gone).*fewer data.workers$"):
        for _ in itertools.islice(loader.batches(0, 16), 100):
            time.sleep(0.05)  # torch would tell of it here, from a signal handler


INTERRUPTED = """
    import signal
    import sys
    import time
    from jepakit.data.loader import Loader
    from jepakit.data.world import World

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts jobs behind itself has it ignored
    batches = Loader(World(length=64), {"batch_size": 4, "size": 8, "workers": 2}, seed=0).batches(0, 10**9)
    try:
        for batch in batches:
            print("ready", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        batches.close()
        sys.exit("stopped by hand")
"""


def test_ctrl_c_is_the_main_process_business(tmp_path):
    program = [sys.executable, "-c", textwrap.dedent(INTERRUPTED)]
    env = os.environ | {"PYTHONWARNINGS": "ignore:This DataLoader will create"}  # on a machine of one core
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True, cwd=tmp_path, env=env
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
        process.stdout.close()
        assert process.wait(60) == 1
    assert (tmp_path / "err").read_text() == "stopped by hand\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
