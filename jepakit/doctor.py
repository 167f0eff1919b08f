"""``jepakit doctor``: what this machine has to train with, and what is amiss."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from jepakit import listing, runs
from jepakit.plugins import Plugins, discover


def command(files: Sequence[Path] = ()) -> int:
    """Print versions, devices, threads, decoders, plugins and disk space. Returns 1 where a plugin does not load."""
    import torch

    found, environment = discover(files), runs.environment()
    rows = [("python", f"{environment['python']} on {environment['platform']}"), ("jepakit", environment["jepakit"])]
    rows += [(name, version or "not installed") for name, version in environment["packages"].items()]
    rows += [("devices", _devices()), ("bf16", "yes" if _bf16() else "no, precision=fp32 is the choice here")]
    rows += [("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")]
    rows += _kernels()
    rows += _decoders(found)
    for status in found.statuses:
        rows.append((f"plugin {status.name}", f"{listing.state(status)} ({status.distribution}, {status.module})"))
    rows.append(("disk", _disk()))
    listing.table(("what", "here"), rows)
    return int(any(status.state in ("failed", "incompatible") for status in found.statuses))


def _kernels() -> list[tuple[str, str]]:
    """What computes, on the device that a run would take."""
    from jepakit import compiling, cudagraphs
    from jepakit.device import keep_pages, pick_device
    from jepakit.kernels import chosen

    device = pick_device("auto")
    rows = [(f"kernel {name}", f"{what} ({device.type})") for name, what in chosen(device).items()]
    compiles, why = compiling.chosen("auto", device)
    rows.append(("compile auto", f"{'blocks are' if compiles else 'nothing is'} compiled: {why} ({device.type})"))
    records, why = cudagraphs.chosen("auto", device)
    rows.append(("CUDA graphs auto", f"{'tried' if records else 'none'}: {why} ({device.type})"))
    kept = "stays with a run (glibc)" if device.type == "cpu" and keep_pages() else "as PyTorch and the system have it"
    return [*rows, ("memory that is freed", kept)]


def _decoders(found: Plugins) -> list[tuple[str, str]]:
    """Each decoder, and which ones of videos ``decoder=auto`` takes."""
    from jepakit.data.isolated import unusable
    from jepakit.data.video import AUTO

    videos = [name for name in found.names("decoder") if hasattr(found.get("decoder", name).load(), "open")]
    lost = {name: unusable(name) for name in videos}
    auto = [name for name in AUTO if name in videos and not lost[name]]
    others = f"; for files of which it has no exact frames {', then '.join(auto[1:])}" if auto[1:] else ""
    rows = [("decoder auto", f"videos: {auto[0]}{others}" if auto else "videos: none can be used")]
    for name in found.names("decoder"):
        what = "videos" if name in videos else "pictures"
        rows.append((f"decoder {name}", f"{what}: cannot be used: {lost[name]}" if lost.get(name) else what))
    return rows


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return ", ".join(f"cuda:{each} {torch.cuda.get_device_name(each)}" for each in range(torch.cuda.device_count()))


def _bf16() -> bool:
    """Whether bf16 is worth it: every CPU computes it, a GPU may not."""
    import torch

    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported()


def _disk() -> str:
    """Free space where runs are kept, or will be."""
    at = runs.ROOT if runs.ROOT.exists() else Path.cwd()
    free = shutil.disk_usage(at).free / 2**30
    return f"{free:.1f} GiB free for {runs.ROOT.absolute()}"
