"""``jepakit bench data``: how many pictures or clips a second one core reads, by each decoder, and by plain Pillow."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from jepakit import listing, runs
from jepakit.bench.entry import Asked
from jepakit.bench.numbers import interval, spread
from jepakit.bench.page import between, number
from jepakit.bench.split import CLOCKS, Now
from jepakit.data import open_source, read_options
from jepakit.data.isolated import spent, unusable
from jepakit.data.loader import Loader
from jepakit.errors import DataError
from jepakit.options import DataOptions
from jepakit.plugins import discover

PLAIN = "plain Pillow"
"""The loader that released code has: Pillow and torchvision's transforms of single pictures, floats from there on."""

Batches = Iterator[Any]


def timed(wanted: Asked) -> dict[str, Any]:
    """Rounds of batches of each loader in turn, in this process and on one thread.

    CPU time is that of the processes that decode videos as well. Raises UserError as training would.
    """
    (_, config), *_ = wanted.sides
    assert isinstance(config, dict)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.ExitStack() as stack:
            chosen, left_out = _decoders(config["data"])
            loaders = {name: stack.enter_context(contextlib.closing(each)) for name, each in _loaders(config, chosen)}
            rounds = _rounds(loaders, wanted.steps, wanted.repeats, _clock(wanted.clock, config["data"]))
    finally:
        torch.set_num_threads(threads)
    found = _result(config, rounds, wanted.steps * config["data"]["batch_size"])
    return found | {"clock": wanted.clock, "left_out": left_out}


def show(found: Mapping[str, Any]) -> None:
    """Print a table of speeds, and what was left out of it."""
    heads, rows = ["decoder", f"{found['unit']}/s and core", "quartiles"], []
    if any(each["times_plain"] for each in found["loaders"]):
        heads.append(f"times {PLAIN}")
    for each in found["loaders"]:
        speed, ratio = each["per_second"], each["times_plain"]
        beside = f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else ""
        row = (each["name"], number(speed["median"]), between(speed["low"], speed["high"]), beside)
        rows.append(row[: len(heads)])
    listing.table(heads, rows)
    for name, reason in found["left_out"].items():
        print(f"{name} is left out: {reason}")


def _clock(name: str, data: Mapping[str, Any]) -> Now:
    """The clock of that name, which for videos sees their helpers."""
    now = CLOCKS[name]
    return (lambda: now() + spent()) if name == "cpu" and "time_limit" in data else now


def _loaders(config: Mapping[str, Any], chosen: Sequence[dict[str, str]]) -> Iterator[tuple[str, Batches]]:
    """Batches without end, of each chosen decoder, by name."""
    data = {**config["data"], "workers": 0}
    for name in chosen:
        loader = Loader(open_source(data | name), data, config["seed"], views=config.get("views"))
        yield name.get("decoder", data["name"]), _endless(lambda loader=loader: loader.batches(0, len(loader)))
    if data["name"] == "folder" and not config.get("views"):
        yield PLAIN, _endless(lambda: iter(plain(open_source(data), read_options(data))))


def _decoders(data: Mapping[str, Any]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Settings that choose each decoder of a source that can be used, one that chooses nothing where a source has none
    to choose; and why others cannot be."""
    if "decoder" not in data:
        return [{}], {}
    found = discover()
    videos = {name: hasattr(found.get("decoder", name).load(), "open") for name in found.names("decoder")}
    wanted = data["decoder"] == "auto" or videos[data["decoder"]]
    reasons = {name: unusable(name) if wanted else "" for name, of_videos in videos.items() if of_videos == wanted}
    usable = [{"decoder": name} for name, why in reasons.items() if not why]
    return usable, {name: why for name, why in reasons.items() if why}


def _endless(begin: Callable[[], Batches]) -> Batches:
    for _ in itertools.count():
        yield from begin()


class Plain(Dataset):
    """Pictures of a folder as released code reads them. Raises DataError for one that Pillow cannot read."""

    def __init__(self, source: Any, options: DataOptions):
        self.source = source
        change: list[Any] = [
            transforms.RandomResizedCrop(options.size, tuple(options.crop_scale), tuple(options.crop_ratio))
        ]
        change += [transforms.RandomHorizontalFlip()] * options.flip
        change += [transforms.ToTensor(), transforms.Normalize(options.mean, options.std)]
        self.change = transforms.Compose(change)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> torch.Tensor:
        try:
            with Image.open(self.source.path(index)) as image:
                return self.change(image.convert("RGB"))
        except OSError as error:
            raise DataError(f"{self.source.describe(index)}: {PLAIN} cannot read it: {error}") from error


def plain(source: Any, options: DataOptions) -> DataLoader:
    """Batches of ``Plain``, in another order each time."""
    return DataLoader(Plain(source, options), options.batch_size, shuffle=True, drop_last=True)


def _rounds(loaders: Mapping[str, Batches], steps: int, repeats: int, now: Now) -> dict[str, list[float]]:
    """Seconds of each loader's rounds, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(repeats + 1):
        for name, batches in loaders.items():
            begun = now()
            for _ in range(steps):
                next(batches)
            found[name].append(now() - begun)
    return {name: seconds[1:] for name, seconds in found.items()}


def _result(config: Mapping[str, Any], rounds: Mapping[str, Sequence[float]], samples: int) -> dict[str, Any]:
    beside = rounds.get(PLAIN)
    told = []
    for name, seconds in rounds.items():
        speed = spread([samples / each for each in seconds])
        pairs = None if beside is None or name == PLAIN else zip(seconds, beside, strict=True)
        ratio = None if pairs is None else interval([theirs / mine for mine, theirs in pairs])._asdict()
        told.append({"name": name, "per_second": speed._asdict(), "rounds": list(seconds), "times_plain": ratio})
    unit = "clip" if config["data"].get("frames", 1) > 1 else "img"
    return {"format": 1, "environment": runs.environment(), "unit": unit, "samples": samples, "loaders": told}
