"""``jepakit slurm``: a batch script that trains on a Slurm cluster, and goes on by itself where its time is up.

The configuration is composed and checked before the script is written, so that no job waits in a queue for a misspelt
key. srun starts one process for each GPU, and these find one another by what it tells them. Some minutes before the end
the script is signalled; it passes the signal on, waits until all have saved, and puts the job back into the queue. The
same line then goes on in the same folder.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepakit import runs
from jepakit.catalog import Catalog
from jepakit.config import compose, prepare, take
from jepakit.errors import ConfigError, first_line
from jepakit.launch import arguments
from jepakit.room import INTERRUPTED
from jepakit.scaling import Step
from jepakit.sharing import altered, shared
from jepakit.strict import check

COUNTS = {"nodes": 1, "gpus": 1, "cpus": None, "grace": 180}
"""Machines; GPUs of each; cores of each process; seconds that saving may take at the end. Null: Slurm's own default."""
WORDS = {"time": r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}", "partition": r"[\w.,-]+", "account": r"[\w.-]+"}
"""What else Slurm is told, and what it looks like."""
MARK = "# Written by: jepakit slurm "
SCRIPT = """\
#!/bin/bash
{directives}
{mark}{line}
# The same script goes on where it was stopped: submit it again with RUN=FOLDER set, or let it requeue itself.

cd {here} || exit 1
{environment}
srun=
again=
asked=
# To srun, which hands it on to every process: they save and end. SIGTERM comes to each of them from Slurm itself.
trap 'asked=1; again=1; [ -z "$srun" ] || kill -s USR1 "$srun"' USR1
trap 'again=1' TERM

srun --kill-on-bad-exit=1 {command} run="${{RUN:-{run}}}" &
srun=$!
while :; do
    wait "$srun"
    code=$?
    [ -n "$again" ] || break  # else it was the signal that ended the waiting
    again=
done
if [ -n "$asked" ] && [ "$code" -eq {interrupted} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def command(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """Write the script of a command line, and hand it to sbatch where ``submit=true`` says so. Returns an exit code.

    Raises ConfigError for a configuration that could not be trained, or where there is no sbatch.
    """
    flags = arguments(argv)
    if flags.multirun:
        raise ConfigError("a sweep on Slurm is: jepakit train -m hydra/launcher=submitit_slurm ...")
    own, overrides = _own(flags.overrides)
    folders = [Path(flags.config_dir)] if flags.config_dir else []
    catalog, named = prepare(overrides, files, folders)
    name = _checked(named, catalog, own["nodes"] * max(1, own["gpus"]))
    words = [*overrides, *(("--config-dir", str(folders[0])) if folders else ())]
    words += [word for file in files for word in ("--plugin", str(file))]
    out = Path(own["out"] or f"{name}.sbatch")
    _write(out, script(name, words, own, shlex.join(argv)))
    print(f"jepakit: wrote {out}" + ("" if own["submit"] else f"; submit it with: sbatch {shlex.quote(str(out))}"))
    return _submit(out) if own["submit"] else 0


def _own(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is said of the job, and what of the training. Raises ConfigError."""
    own: dict[str, Any] = {}
    rest = list(overrides)
    for key in (*COUNTS, *WORDS, "out", "env", "submit"):
        own[key], rest = take(key, rest)
    for key, default in COUNTS.items():
        least = 0 if key == "gpus" else 1
        if own[key] is not None and not (own[key].isdecimal() and int(own[key]) >= least):
            raise ConfigError(f"{key}={own[key]} is no number of at least {least}")
        own[key] = default if own[key] is None else int(own[key])
    for key, shape in WORDS.items():
        if own[key] is not None and not re.fullmatch(shape, own[key], re.ASCII):
            raise ConfigError(f"{key}={own[key]} is not what Slurm understands; for instance: time=24:00:00")
    if own["submit"] not in (None, "true", "false"):
        raise ConfigError(f"submit={own['submit']} is no choice: write submit=true")
    return own | {"submit": own["submit"] == "true"}, rest


def _checked(overrides: Sequence[str], catalog: Catalog, world: int) -> str:
    """The name of the job. Raises ConfigError for what could not be trained in so many processes."""
    run, rest = take("run", overrides)
    if run and not any(each.startswith("recipe=") for each in rest):
        before = runs.open_run(Path(run))
        config, _ = runs.amend(before, rest, catalog)
        config = altered(config, shared(check(before.config, catalog), world))
    else:
        config = compose(take("resume", rest)[1], catalog)
    if config["trainer"]["devices"] not in (None, world):
        raise ConfigError(f"trainer.devices={config['trainer']['devices']}, but nodes x gpus is {world}: leave it out")
    Step.of(config, world)
    return re.sub(r"[^\w.-]", "-", config["recipe"] or "run")


def script(name: str, words: Sequence[str], own: Mapping[str, Any], line: str) -> str:
    """The batch script: ``words`` are those of ``jepakit train``, ``own`` what the job is to have."""
    run, words = take("run", words)
    directives = {
        "job-name": name,
        "nodes": own["nodes"],
        "ntasks-per-node": max(1, own["gpus"]),
        "gpus-per-node": own["gpus"] or None,
        "cpus-per-task": own["cpus"],
        **{key: own[key] for key in WORDS},
        "signal": f"B:USR1@{own['grace']}",
        "open-mode": "append",
        "output": f"{name}-%j.out",
    }
    told = [f"#SBATCH --{key}={value}" for key, value in directives.items() if value is not None]
    # srun does not take this over by itself any more (Slurm 22.05).
    cores = [f"export SRUN_CPUS_PER_TASK={own['cpus']}"] * bool(own["cpus"])
    python = "jepakit" if own["env"] else f"{shlex.quote(sys.executable)} -P -m jepakit"
    return SCRIPT.format(
        directives="\n".join([*told, "#SBATCH --requeue"]),
        mark=MARK,
        line=line.replace("\n", " "),
        here=shlex.quote(str(Path.cwd())),
        environment="\n".join([*([own["env"]] if own["env"] else []), *cores]),
        command=f"{python} train {shlex.join(words)}",
        run=_within_quotes(run) if run else f"runs/{name}-$SLURM_JOB_ID",
        interrupted=INTERRUPTED,
    )


def _within_quotes(text: str) -> str:
    """A text that stands between double quotes, and means itself."""
    return re.sub(r'([\\$`"}])', r"\\\1", text)


def _write(out: Path, text: str) -> None:
    if out.exists() and MARK not in out.read_text("utf-8", errors="replace"):
        raise ConfigError(f"out={out}: the file is there already, and jepakit did not write it")
    out.write_text(text, "utf-8")
    out.chmod(0o755)


def _submit(out: Path) -> int:
    if shutil.which("sbatch") is None:
        raise ConfigError(f"submit=true: there is no sbatch here; on a machine of the cluster: sbatch {out}")
    done = subprocess.run(["sbatch", str(out)], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"sbatch: {first_line(RuntimeError(done.stderr))}")
    print(f"jepakit: {done.stdout.strip()}")
    return 0
