"""Tab completion: verbs, then what a verb understands. Nothing here imports torch.

eval "$(jepakit -sc install=bash)"
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jepakit.errors import ConfigError, UserError, nearest


def complete(request: str, verbs: Sequence[str], take: Callable[[list[str]], tuple[list[str], list[Path]]]) -> int:
    """Answer ``-sc install=bash``, ``uninstall=bash`` or ``query=bash``; ``take`` cuts ``--plugin FILE`` out."""
    action, _, shell = request.partition("=")
    if action not in ("install", "uninstall", "query"):
        raise ConfigError(f"-sc {request}: write -sc install=bash{nearest(action, ('install', 'uninstall', 'query'))}")
    from hydra.core.plugins import Plugins
    from hydra.plugins.completion_plugin import CompletionPlugin

    shells = {each.provides(): each for each in Plugins.instance().discover(CompletionPlugin)}  # type: ignore[type-abstract]
    if shell not in shells:
        raise ConfigError(f"-sc {request}: no shell {shell!r}{nearest(shell, shells)}; there are: {', '.join(shells)}")
    if action == "query":
        print(" ".join(candidates(os.environ.get("COMP_LINE", ""), verbs, take)))
    else:
        getattr(shells[shell](None), action)()  # type: ignore[arg-type]
    return 0


def candidates(line: str, verbs: Sequence[str], take: Callable[[list[str]], tuple[list[str], list[Path]]]) -> list[str]:
    """What the last word of a command line may become."""
    words = line.split()[1:] + ([""] if line.endswith(" ") else [])
    try:
        words, files = take(words)
        if len(words) < 2:
            return [verb for verb in verbs if verb.startswith(words[0] if words else "")]
        return _arguments(words[0], words[1:], files)
    except UserError:  # the line cannot be read yet; an error would be printed into what is being typed
        return []


def _arguments(verb: str, words: list[str], files: list[Path]) -> list[str]:
    from jepakit import runs
    from jepakit.hookspecs import KINDS

    word = words[-1]
    fixed = {
        "show": ["config", "curves", "flow", "masks", "predictions", "views"],
        "data": ["check"],
        "new": list(KINDS),
        "plugins": ["--matrix", "--verbose"],
    }
    if verb in fixed and (len(words) == 1 or verb == "plugins"):
        return [each for each in fixed[verb] if each.startswith(word)]
    own = [each for each in OPTIONS.get(verb, ()) if each.startswith(word)]
    if verb in ("train", "eval", "report", "features", "export", "health", "bench"):
        own += [each for run in runs.found() if (each := f"run={run}").startswith(word)]
    if verb == "eval":
        from jepakit.catalog import collect
        from jepakit.optionfiles import PROTOCOL

        names = ("all", *collect(files).names(PROTOCOL))
        own += [each for name in names if (each := f"protocol={name}").startswith(word)]
    if verb == "compare":
        own += [str(run) for run in runs.found() if str(run).startswith(word)]
    composed = (
        _composed(words[verb in fixed :], files) if verb in ("train", "slurm", "plan", "show", "data", "bench") else []
    )
    return sorted({*own, *(each for each in composed if each.startswith(word))})


WHICH = ("weights=target", "weights=online")
FORMATS = ("hf", "hf_vjepa2", "meta", "safetensors", "timm", "vjepa", "vjepa2")
OPTIONS = {
    "train": ("resume=auto",),
    "slurm": tuple(
        f"{key}=" for key in ("nodes", "gpus", "cpus", "time", "partition", "account", "grace", "env", "out")
    )
    + ("submit=true",),
    "eval": (
        "run=",
        *WHICH,
        "data.root=",
        "fit_root=",
        "clips=",
        "views=",
    ),
    "compare": ("published=", "out="),
    "health": ("run=", "out=", "picture=false"),
    "bench": ("data", "run=", "against=", "sweep=", "plot=", "steps=", "repeats=", "clock=cpu", "fixed=true", "out=")
    + ("profile=", "roofline=true"),
    "plan": tuple(f"{each}=" for each in ("gpus", "gpu", "memory", "mfu", "per_machine", "network", "images", "out")),
    "report": ("run=", "out=", "draw=false"),
    "features": ("run=", "file=", *WHICH, "data.root=", "out=", "pool=mean", "pool=none"),
    "inspect": ("recipe=", "heads=", "size=", "frames=", "--verbose"),
    "import": ("out=", "heads=", "predictor_heads=", "size=", "frames="),
    "export": ("run=", *(f"to={each}" for each in FORMATS), "out=", "size=", "frames=", *WHICH),
}
"""Settings of verbs that compose no configuration, and those that a configuration does not have."""


def _composed(words: list[str], files: list[Path]) -> list[str]:
    """Groups, their options, and the keys of the configuration that the words before the last one stand for."""
    from jepakit.config import compose, prepare
    from jepakit.optionfiles import GROUPS
    from jepakit.strict import flatten

    *said, word = (each for each in words if not each.startswith("-") or each == words[-1])
    catalog, said = prepare(said, files)
    group, sign, _ = word.partition("=")
    if sign:
        return [f"{group}={name}" for name in catalog.names(group)]
    try:
        config = compose(said, catalog, complete=False)
    except ConfigError:  # a word before this one is not right (yet), or is a sweep: keys of the default have to do
        config = compose([], catalog, complete=False)
    keys = [f"{key}=" for key in flatten(config)]
    return [f"{group}=" for group in (*GROUPS, "recipe")] + [_next_part(key, len(word)) for key in keys]


def _next_part(key: str, start: int) -> str:
    """A key up to its next dot."""
    dot = key.find(".", start)
    return key if dot < 0 else key[: dot + 1]
