"""``jepakit train``: a new run, one that is continued, or a sweep of several."""

import contextlib
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig

from jepakit import runs
from jepakit.catalog import ROOT, Catalog
from jepakit.config import compose, jobs, parse, plainly, prepare, settle, take
from jepakit.errors import ConfigError, UserError
from jepakit.optionfiles import Node
from jepakit.strict import check


def train(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """Train as ``argv`` says: overrides, ``run=``, ``resume=auto``, and Hydra's flags. Returns an exit code."""
    flags = arguments(argv)
    resume, overrides = take("resume", flags.overrides)
    if resume not in (None, "auto"):
        raise ConfigError(f"resume={resume} is no choice: write resume=auto, or run=FOLDER to continue a certain run")
    catalog, overrides = prepare(overrides, files, _folders(flags))
    line = ["train", *argv, *(word for file in files for word in ("--plugin", str(file)))]
    if flags.multirun:
        return _sweep(overrides, catalog, line)
    if flags.cfg or flags.info or flags.hydra_help:
        compose(overrides, catalog, complete=False)
        logging.raiseExceptions = False  # Hydra prints through its log, where a closed pipe (| head) is no matter
        _hydra(_flags(flags), overrides, catalog, lambda cfg: None)
        return 0
    folder, overrides = take("run", overrides)
    if folder is not None and not any(each.startswith("recipe=") for each in overrides):
        return _continue(runs.open_run(Path(folder)), overrides, catalog, line)
    config = compose(overrides, catalog)
    if folder is not None and (Path(folder) / "config.yaml").is_file():
        return _same(runs.open_run(Path(folder)), config, catalog, line)
    if resume:
        found = runs.newest(runs.ROOT, config["recipe"], config)
        if found:
            return _same(found, config, catalog, line)
        print(f"jepakit: no unfinished run of recipe {config['recipe']} with this configuration: a new one begins")
    return _begin(config, catalog, line, Path(folder) if folder else None)


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


def _begin(config: dict[str, Any], catalog: Catalog, line: Sequence[str], folder: Path | None = None) -> int:
    """A new run. A mistake of the user's that shows before anything was trained leaves no folder behind."""
    folder = runs.create(config, catalog.plugins, line, folder)
    print(f"jepakit: run {folder}")
    try:
        return _run(config | {"run": str(folder)}, folder)
    except UserError:
        runs.discard(folder)
        raise


def _continue(run: runs.Run, overrides: Sequence[str], catalog: Catalog, line: Sequence[str]) -> int:
    """A run with its own configuration, and what the command line changes of it."""
    config, changed = runs.amend(run, overrides, catalog)
    return _resume(run, config, changed, catalog, line)


def _same(run: runs.Run, config: dict[str, Any], catalog: Catalog, line: Sequence[str]) -> int:
    """A run that a full command line names again. Raises ConfigError where they differ in more than length."""
    config = config | {"run": run.config.get("run")}
    changed = runs.changes(check(run.config, catalog), config)
    for key, (before, after) in changed.items():
        if key not in runs.LENGTH:
            there = f"run={run.folder} is there already, with {key}={before} in place of {after}"
            raise ConfigError(f"{there}: name another folder, or continue it with run={run.folder} alone")
    return _resume(run, config, changed, catalog, line)


def _resume(
    run: runs.Run, config: dict[str, Any], changed: dict[str, tuple], catalog: Catalog, line: Sequence[str]
) -> int:
    print(f"jepakit: run {run.folder} goes on")
    if joined := runs.joined(run.config, config):
        print(f"jepakit: new since the run began, at their defaults: {', '.join(joined)}")
    for key, (before, after) in changed.items():
        print(f"jepakit: {key} changes from {before} to {after}")
    for warning in runs.differing_plugins(run, catalog.plugins):
        print(f"jepakit: warning: {warning}", file=sys.stderr)
    config = config | {"run": str(run.folder)}
    runs.note(run.folder, config, line)
    return _run(config, run.folder)


def _run(config: dict[str, Any], folder: Path) -> int:
    from jepakit.train import run

    code = run(config, folder)
    if code == 0:
        runs.finish(folder)
    return code


# Sweeps -------------------------------------------------------------------------------------------------------------


def _sweep(overrides: list[str], catalog: Catalog, line: Sequence[str]) -> int:
    """Every job is composed and checked, then the first one starts. Their folders lie in one of the sweep's own."""
    parsed = parse(overrides, catalog)
    keys = {each.key_or_group for each in parsed}
    if "run" in keys:
        raise ConfigError("run= names one folder, but a sweep (-m) makes one for each job; leave it out")
    count = 0
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
        code = _begin(config, catalog, line, Path(os.path.relpath(chosen.runtime.output_dir)))
        if code:
            raise SystemExit(code)
        return code

    _hydra(["--multirun"], [*overrides, *where], catalog, job)
    return 0


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
