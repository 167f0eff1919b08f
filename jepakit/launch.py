"""``jepakit train``: a new run, one that is continued, or a sweep of several; in one process or in many.

Where ``trainer.devices`` asks for several, this one makes the run's folder and starts them (``processes``). Where a
launcher has started several of this very command line, the first one does so for all, and they train (``worker``).
"""

import contextlib
import copyreg
import functools
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig

from jepakit import runs
from jepakit.catalog import ROOT, Catalog
from jepakit.config import compose, jobs, parse, plainly, prepare, settle, take
from jepakit.errors import ConfigError, UserError
from jepakit.lock import held
from jepakit.optionfiles import Node
from jepakit.room import failure
from jepakit.sharing import agreed, altered, begun, note_beginning, refuse_devices, shared, unfinished, why
from jepakit.strict import check


class Call(NamedTuple):
    """One call of the verb: what can be chosen, what was typed, what trains, in how many processes (0: as many as the
    configuration says, and they are yet to be started)."""

    catalog: Catalog
    line: Sequence[str]
    start: Callable[[dict[str, Any], Path], int]
    world: int = 0


def train(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """Train as ``argv`` says: overrides, ``run=``, ``resume=auto``, and Hydra's flags. Returns an exit code."""
    if {"RANK", "SLURM_PROCID"} & set(os.environ):
        from jepakit import distributed, worker

        if distributed.launched():
            device, _ = take("trainer.device", [each for each in argv if "=" in each])
            worker.lead(lambda start, world: _train(argv, files, start, world), device or "auto", files)
    return _train(argv, files, functools.partial(_start, files=files))


def _train(argv: Sequence[str], files: Sequence[Path], start: Callable[..., int], world: int = 0) -> int:
    flags = arguments(argv)
    resume, given = take("resume", flags.overrides)
    if resume not in (None, "auto"):
        raise ConfigError(f"resume={resume} is no choice: write resume=auto, or run=FOLDER to continue a certain run")
    catalog, overrides = prepare(given, files, _folders(flags))
    line = ["train", *argv, *(word for file in files for word in ("--plugin", str(file)))]
    call = Call(catalog, line, start, world)
    if flags.multirun:
        how = (given, [file.absolute() for file in files], [folder.absolute() for folder in _folders(flags)])
        with _portable(*how):
            return _sweep(overrides, call)
    if flags.cfg or flags.info or flags.hydra_help:
        compose(overrides, catalog, complete=False)
        logging.raiseExceptions = False  # Hydra prints through its log, where a closed pipe (| head) is no matter
        _hydra(_flags(flags), overrides, catalog, lambda cfg: None)
        return 0
    folder, overrides = take("run", overrides)
    if folder is not None and not any(each.startswith("recipe=") for each in overrides):
        return _continue(runs.open_run(Path(folder)), overrides, call)
    config = compose(overrides, catalog)
    if resume and not (folder and (Path(folder) / "config.yaml").is_file()):
        if found := unfinished(config):
            return _same(found, config, call)
        print(f"jepakit: no unfinished run of recipe {config['recipe']} with this configuration: a new one begins")
    return go(config | {"run": folder}, call)


def go(config: Mapping[str, Any], call: Call) -> int:
    """Train a configuration: in the folder that its ``run`` names, where a run may go on, or in a new one."""
    folder = Path(config["run"]) if config.get("run") else None
    if folder and (folder / "config.yaml").is_file():
        return _same(runs.open_run(folder), dict(config), call)
    return _begin(dict(config), call, folder)


def arguments(argv: Sequence[str]) -> Namespace:
    """Hydra's flags and the overrides. Raises ConfigError for a flag that there is not."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    found = parser.parse_intermixed_args(list(argv))
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(found, flag):
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name} has no place here: choose with recipe=NAME or --config-dir DIR")
    return found


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see jepakit train --help")


def _folders(flags: Namespace) -> list[Path]:
    return [Path(flags.config_dir)] if flags.config_dir else []


def _begin(config: dict[str, Any], call: Call, folder: Path | None = None) -> int:
    """A new run. A mistake of the user's that shows before anything was trained leaves no folder behind."""
    config = altered(config, {"trainer.devices": agreed(config["trainer"]["devices"], call.world)})
    refuse_devices(config["trainer"])
    folder = runs.create(config, call.catalog.plugins, call.line, folder)
    print(f"jepakit: run {folder}", flush=True)
    try:
        with held(folder):
            return _run(config | {"run": str(folder)}, folder, call)
    except UserError:
        runs.discard(folder)
        raise


def _continue(run: runs.Run, overrides: Sequence[str], call: Call) -> int:
    """A run with its own configuration, and what the command line changes of it."""
    config, changed = runs.amend(run, overrides, call.catalog)
    given = {each.partition("=")[0] for each in overrides}
    asked = config["trainer"]["devices"] if "trainer.devices" in given or not call.world else None
    new: dict[str, Any] = {"trainer.devices": agreed(asked, call.world)}
    if not given & {"trainer.accumulate", "data.batch_size"}:  # else the user has said what a process takes
        new = shared(check(run.config, call.catalog), new["trainer.devices"])
    return _resume(run, amended := altered(config, new), changed | runs.changes(config, amended), call)


def _same(run: runs.Run, config: dict[str, Any], call: Call) -> int:
    """A run that a full command line names again. Raises ConfigError where they differ in more than length, or in how
    many processes there are."""
    before = check(run.config, call.catalog)
    config = config | {"run": run.config.get("run")}
    for key, (old, new) in runs.changes(begun(run, before), config).items():
        if key not in (*runs.LENGTH, "trainer.devices"):
            there = f"run={run.folder} is there already, with {key}={old} in place of {new}"
            raise ConfigError(f"{there}: name another folder, or continue it with run={run.folder} alone")
    config = altered(config, shared(before, agreed(config["trainer"]["devices"], call.world)))
    return _resume(run, config, runs.changes(before, config), call)


def _resume(run: runs.Run, config: dict[str, Any], changed: dict[str, tuple], call: Call) -> int:
    refuse_devices(config["trainer"])
    with held(run.folder):
        return _go_on(run, config, changed, call)


def _go_on(run: runs.Run, config: dict[str, Any], changed: dict[str, tuple], call: Call) -> int:
    print(f"jepakit: run {run.folder} goes on", flush=True)
    if joined := runs.joined(run.config, config):
        print(f"jepakit: new since the run began, at their defaults: {', '.join(joined)}")
    for key, (before, after) in changed.items():
        print(f"jepakit: {key} changes from {before} to {after}{why(key, changed)}")
    for warning in runs.differing_plugins(run, call.catalog.plugins):
        print(f"jepakit: warning: {warning}", file=sys.stderr)
    config = config | {"run": str(run.folder)}
    if "trainer.devices" in changed:
        note_beginning(run)
    runs.note(run.folder, config, call.line)
    return _run(config, run.folder, call)


def _run(config: dict[str, Any], folder: Path, call: Call) -> int:
    code = call.start(config, folder)
    if code == 0:
        runs.finish(folder)
    return code


def _start(config: dict[str, Any], folder: Path, files: Sequence[Path] = ()) -> int:
    """Train in this process, or in several that it starts."""
    if (config["trainer"]["devices"] or 1) > 1:
        from jepakit import processes

        return processes.run(folder, config["trainer"], files)
    from jepakit.train import run

    return run(config, folder)


# Sweeps -------------------------------------------------------------------------------------------------------------


def _sweep(overrides: list[str], call: Call) -> int:
    """Every job is composed and checked, then the first one starts. Their folders lie in one of the sweep's own."""
    catalog = call.catalog
    parsed = parse(overrides, catalog)
    keys = {each.key_or_group for each in parsed}
    if "run" in keys:
        raise ConfigError("run= names one folder, but a sweep (-m) makes one for each job; leave it out")
    if call.world > 1:
        raise ConfigError("a sweep (-m) starts its own processes, with trainer.devices=N; start it without a launcher")
    count, here = 0, os.getpid()
    if "hydra/sweeper" not in keys:  # another sweeper's jobs are its own; each is still checked before it trains
        commands = jobs(overrides, catalog)
        for each in commands:
            compose(each, catalog)
        count = len(commands)
    where = [] if "hydra.sweep.dir" in keys else [f"hydra.sweep.dir={runs.fresh(runs.ROOT / 'sweep')}"]

    def job(cfg: Node) -> int:
        chosen = HydraConfig.get()
        config = settle(cfg, chosen.runtime.choices, catalog)
        print(f"jepakit: job {chosen.job.num + 1}{f' of {count}' * bool(count)}: {' '.join(chosen.overrides.task)}")
        folder = Path(os.path.relpath(chosen.runtime.output_dir))
        if os.getpid() != here:  # another launcher's, which may start a job again that was stopped
            return _told(go(config | {"run": str(folder)}, call), folder)
        code = _begin(config, call, folder)
        if code:
            raise SystemExit(code)
        return code

    _hydra(["--multirun"], [*overrides, *where], catalog, job)
    return 0


def _told(code: int, folder: Path) -> int:
    """What the process that waits for a job is told of it."""
    if code:
        raise failure(f"{folder} is not finished; go on with: jepakit train run={folder}", code)
    return code


@contextlib.contextmanager
def _portable(*how: Any) -> Iterator[None]:
    """Let jobs that train in other processes collect the catalog there, where a plugin's file is no module yet."""
    copyreg.pickle(Catalog, lambda catalog: (_collected, how))
    try:
        yield
    finally:
        del copyreg.dispatch_table[Catalog]


def _collected(overrides: Sequence[str], files: Sequence[Path], folders: Sequence[Path]) -> Catalog:
    """The catalog of a command line once more, with its plugins, in another process."""
    return prepare(overrides, files, folders)[0]


def _flags(flags: Namespace) -> list[str]:
    """The flags that Hydra itself answers, written out again."""
    given = ["--hydra-help"] if flags.hydra_help else []
    given += ["--resolve"] if flags.resolve else []
    for name in ("cfg", "info", "package"):
        given += [f"--{name}", getattr(flags, name)] if getattr(flags, name) else []
    return given


def _hydra(flags: Sequence[str], overrides: Sequence[str], catalog: Catalog, task: Callable[[Node], Any]) -> None:
    """Hand over to ``hydra.main``; what it raises comes back as one line."""
    catalog.publish()
    with plainly(catalog), _speaking_as("jepakit train", *flags, *overrides):
        hydra.main(config_path=None, config_name=ROOT, version_base="1.3")(task)()


@contextlib.contextmanager
def _speaking_as(*argv: str) -> Iterator[None]:
    """Hydra reads ``sys.argv``, and prints errors by itself unless HYDRA_FULL_ERROR hands them to the caller."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = list(argv), "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
