"""One of the processes that share a step: ``python -m jepakit.worker RUN_FOLDER [--plugin FILE ...]``.

It reads the configuration that the launcher has written, joins the others and trains. Whoever starts processes in its
own way calls ``run``. A process that has had a group of processes leaves without Python's own end, in which gloo's
threads abort some of them.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jepakit.errors import ConfigError, UserError, first_line
from jepakit.plugins import discover
from jepakit.room import INTERRUPTED, LAUNCHER, ROOM, Report, Room

Start = Callable[[dict[str, Any], Path], int]
"""What trains a configuration in its folder, in all processes. Returns the exit code."""
Task = Callable[[], int]
Lead = Callable[[Start, int], int]
"""What the first process does for all: make a configuration and a folder (for so many processes), and start."""

PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Train what a run's folder says, as one of several processes, and leave with an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see cli.main
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    words = list(sys.argv[1:] if argv is None else argv)
    if LAUNCHER in os.environ:
        _end_with(int(os.environ[LAUNCHER]))
    if (room := _room()) and not room.enter(_number("RANK")):
        _leave(Report(INTERRUPTED))
    _leave(Report(_or_leave(lambda: _from_folder(words))))


def lead(task: Lead, device: str = "auto", files: Sequence[Path] = ()) -> NoReturn:
    """A command line that a launcher has started several times: the first process composes, all train, each leaves."""
    discover(files)  # what the first one chooses, the others have to know
    _leave(Report(_or_leave(lambda: _together(task, _or_leave, device))))


def run(config: Mapping[str, Any] | str | Path) -> int:
    """Train as one of several processes that something else has started, in its group where it has made one.

    ``config`` is a run's folder, or what ``jepakit.config.resolve`` makes of a command line. Its ``run`` names the
    folder: where there is a run, it goes on. This is what Ray Train's TorchTrainer and a Kubernetes TrainJob call.
    Returns the exit code: 0 once the run is finished, 130 where it was told to stop, and saved. Raises UserError.
    """
    if not isinstance(config, Mapping):
        return _train(Path(config), [], _simply)
    from jepakit import launch
    from jepakit.catalog import collect

    catalog = collect()
    return _together(lambda start, world: launch.go(config, launch.Call(catalog, ("train",), start, world)), _simply)


# What they do together -----------------------------------------------------------------------------------------------


def _from_folder(argv: Sequence[str]) -> int:
    from jepakit.cli import take_plugins

    words, files = take_plugins(argv)
    if len(words) != 1:
        raise ConfigError("a worker is told its run's folder and nothing else: python -m jepakit.worker RUN_FOLDER")
    return _train(Path(words[0]), files, _or_leave)


def _train(folder: Path, files: Sequence[Path], within: Callable[[Task], int]) -> int:
    """Train what a run's folder says; its configuration is checked once more."""
    from jepakit import distributed, runs
    from jepakit.catalog import collect
    from jepakit.strict import check

    config = check(runs.open_run(folder).config, collect(files))
    with distributed.joined(config["trainer"]["device"], config["trainer"]["timeout"]):
        return within(lambda: _loop(config, folder))


def _loop(config: dict[str, Any], folder: Path) -> int:
    """Train, and wait for one another at the end: what started them may end all when the first one leaves."""
    from jepakit import distributed
    from jepakit.train import run as train

    return max(distributed.gather(train(config, folder)))


def _together(lead: Lead, within: Callable[[Task], int], device: str = "auto") -> int:
    """The first process says what all train."""
    from jepakit import distributed

    with distributed.joined(device) as place:
        return within(lambda: _lead(lead, place.world) if place.first else _follow())


def _lead(lead: Lead, world: int) -> int:
    """Do what is to be done for all, and tell the others what it starts, or how it ended without."""
    from jepakit import distributed

    told: list[tuple] = []

    def tell(*words: Any) -> None:
        told.append(distributed.tell(words))

    def start(config: dict[str, Any], folder: Path) -> int:
        tell("train", config, str(folder))
        distributed.wait(config["trainer"]["timeout"])
        return _loop(config, folder)

    try:
        code = lead(start, world)
    except BaseException as error:
        if not told:
            tell("fail", str(error), getattr(error, "exit_code", 1))
        raise
    if not told:
        tell("end", code)
    return code


def _follow() -> int:
    """Do what the first process says."""
    from jepakit import distributed

    what, *words = distributed.tell(())
    if what == "train":
        distributed.wait(words[0]["trainer"]["timeout"])
        return _loop(words[0], Path(words[1]))
    if what == "end":
        return words[0]
    error = distributed.Elsewhere(words[0])
    error.exit_code = words[1]
    raise error


# How one of them ends ------------------------------------------------------------------------------------------------


def _simply(task: Task) -> int:
    return task()


def _or_leave(task: Task) -> int:
    """Do a task. Where it fails, say why and leave: a group that has lost some cannot be taken down in order."""
    try:
        return task()
    except BaseException as error:
        _leave(_report(error))


def _report(error: BaseException) -> Report:
    """What is to be said of an error."""
    distributed: Any = sys.modules.get("jepakit.distributed")
    if distributed and isinstance(error, distributed.Elsewhere):
        return Report(error.exit_code, elsewhere=True)  # type: ignore[attr-defined]
    if isinstance(error, UserError):
        return Report(error.exit_code, str(error).replace("\n", " "))
    if isinstance(error, KeyboardInterrupt):
        return Report(INTERRUPTED)
    if isinstance(error, SystemExit):
        return Report(error.code if isinstance(error.code, int) else int(error.code is not None))
    return Report(1, f"{type(error).__name__}: {first_line(error)}", traceback.format_exc())


def _leave(report: Report) -> NoReturn:
    """Tell whoever wants to know, and end without Python's own end.

    Of what is no mistake of the program's the agent hears nothing: it would end those that are about to say the same.
    """
    report.rank, code = _number("RANK", "SLURM_PROCID"), report.code
    if room := _room():
        room.leave(report)
        code = 1 if report.trace else 0
    elif report.error and _foremost(report.error):
        who = f"rank {report.rank}: " * bool(report.rank)  # the first one speaks for all
        print(f"{report.trace}jepakit: error: {who}{report.error}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever was listening has gone
            stream.flush()
    os._exit(code)


def _foremost(error: str) -> bool:
    """Whether this process is the first to say so."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    try:
        return distributed.distributed_c10d._get_default_store().add(f"jepakit: {error}", 1) == 1
    except RuntimeError:  # the process that kept count has gone
        return True


def _room() -> Room | None:
    """Where word is left; None where nobody comes for it."""
    return Room(Path(os.environ[ROOM])) if ROOM in os.environ else None


def _number(*names: str) -> int:
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def _end_with(launcher: int) -> None:
    """End when the launcher does, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_look_after, args=(launcher,), daemon=True).start()
    if os.getppid() != launcher:
        os._exit(1)


def _look_after(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
