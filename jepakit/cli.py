"""The verbs. What they do lies elsewhere: here is what they are called, and how mistakes are told."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jepakit
from jepakit.errors import ConfigError, UserError, nearest
from jepakit.usage import HELP, VERB_HELP

TRUST = "JEPAKIT_TRUST"
"""Variable that says the same as ``--trust``: run folders of others may be gone on with."""
Verb = Callable[[list[str], list[Path]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line. Returns its exit code: 2 for a mistake of the user's, told in one line."""
    # Threads that wait for one another soon sleep instead of spinning: where something else wants a core, spinning
    # made training on two threads eight times slower. It must be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"jepakit: error: {str(error).replace(chr(10), ' ')}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough; a descriptor that takes the rest keeps the exit quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(argv: list[str]) -> int:
    if argv[:1] == ["-sc"] or argv[:1] == ["--shell-completion"]:
        from jepakit.completion import complete

        return complete(argv[1] if len(argv) > 1 else "", list(VERBS), take_plugins)
    argv, files = take_plugins(argv)
    if "--trust" in argv:
        os.environ[TRUST] = "1"  # processes that are started agree
        argv = [word for word in argv if word != "--trust"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"jepakit {jepakit.__version__}")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        raise ConfigError(f"no verb {verb!r}{nearest(verb, VERBS)}; there are: {', '.join(VERBS)}")
    if any(each in ("-h", "--help") for each in rest):
        return _help(verb, files)
    return VERBS[verb](rest, files)


def take_plugins(argv: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Cut every ``--plugin FILE`` out of a command line."""
    rest, files, words = [], [], iter(argv)
    for word in words:
        if word == "--plugin":
            file = next(words, None)
            if file is None:
                raise ConfigError("--plugin needs a file: --plugin my_masker.py")
            files.append(Path(file))
        elif word.startswith("--plugin="):
            files.append(Path(word.partition("=")[2]))
        else:
            rest.append(word)
    return rest, files


def _help(verb: str, files: list[Path]) -> int:
    from jepakit.new import KINDS

    print(VERB_HELP[verb].replace("{kinds}", ", ".join(KINDS)), end="")
    if verb == "eval":
        _protocols(files)
    if verb == "train":
        from jepakit.catalog import collect
        from jepakit.optionfiles import GROUPS

        catalog = collect(files)
        print()
        for group in ("recipe", *GROUPS):
            print(f"  {group}: {', '.join(catalog.names(group)) or 'none'}")
    return 0


def _protocols(files: list[Path]) -> None:
    """The protocols, each with the first line of its file."""
    from jepakit.catalog import collect
    from jepakit.optionfiles import PROTOCOL

    catalog = collect(files)
    options = [catalog.get(PROTOCOL, name) for name in catalog.names(PROTOCOL)]
    width = max(len(option.name) for option in options)
    print()
    for option in options:
        first = option.file.read_text("utf-8").splitlines()[0] if option.file else ""
        print(f"  {option.name:{width}}  {first.lstrip('# ')}")


def _eval(argv: list[str], files: list[Path]) -> int:
    from jepakit import runs
    from jepakit.catalog import collect
    from jepakit.config import assignments
    from jepakit.evaluate.protocol import kinds
    from jepakit.strict import refuse_data_keys

    several = [word for word in argv if word.startswith("protocol=") and "," in word and "[" not in word]
    given = assignments([f"protocol=[{word.partition('=')[2]}]" if word in several else word for word in argv])
    if "run" not in given:
        raise ConfigError("eval needs a run: jepakit eval run=runs/... protocol=knn")
    run = runs.open_run(Path(str(given.pop("run"))))
    data = {key.partition(".")[2] or "name": given.pop(key) for key in list(given) if key.split(".")[0] == "data"}
    if "root" in data and "root" not in run.config["data"]:
        data = {"name": "folder", **data}
    catalog = collect(files)
    if "flow" not in kinds(catalog, given.get("protocol", "all")):  # whose data are those of the branch that infers it
        refuse_data_keys(data, data.get("name", run.config["data"]["name"]), catalog)
    from jepakit import evaluate

    return evaluate.command(run.folder, given | {"data": data}, files)


def _show(argv: list[str], files: list[Path]) -> int:
    what, rest = _one_of("show", ("config", "masks", "views", "curves", "flow", "predictions"), argv)
    if what == "predictions":
        from jepakit.pictures import predictions

        return predictions.command(rest, files)
    audit, rest = _audit(what, rest)
    from jepakit.launch import arguments

    flags = arguments(rest)
    folders = [Path(flags.config_dir)] if flags.config_dir else []
    if what == "config":
        from jepakit import listing
        from jepakit.origins import origins

        listing.settings(origins(flags.overrides, files, folders))
        return 0
    config, out = _shown(flags.overrides, files, folders)
    from jepakit import pictures

    print(pictures.command(what, config, out) if audit is None else pictures.audited(config, audit, out))
    return 0


def _audit(what: str, argv: list[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """What is asked of an audit (``--audit`` or ``audit=true``, and ``audit.KEY=VALUE``; None: none), and the rest."""
    own = [word for word in argv if word == "--audit" or word.partition("=")[0].split(".")[0] == "audit"]
    if not own:
        return None, argv
    from jepakit.config import assignments

    given = assignments(["audit=true" if word == "--audit" else word for word in own])
    asked = given.pop("audit", None)
    if what != "masks" or asked not in (True, False) or (given and not asked):
        raise ConfigError(f"show {what} {own[0]} has no place: write jepakit show masks --audit audit.batches=N")
    return {key.partition(".")[2]: value for key, value in given.items()} if asked else None, [
        word for word in argv if word not in own
    ]


def _shown(overrides: list[str], files: list[Path], folders: list[Path]) -> tuple[dict[str, Any], Path | None]:
    """The configuration to draw, of a run or composed, and where the picture goes (None: where it belongs)."""
    from jepakit import runs
    from jepakit.config import resolve, take

    out, overrides = take("out", overrides)
    run, rest = take("run", overrides)
    if run is None:
        return resolve(rest, files, folders, complete=False), Path(out) if out else None
    if rest:
        raise ConfigError(f"{rest[0]} has no place beside run={run}, which has its own configuration")
    return runs.open_run(Path(run)).config | {"run": run}, Path(out) if out else None


def _plugins(argv: list[str], files: list[Path]) -> int:
    from jepakit import listing
    from jepakit.plugins import discover

    if "--matrix" in argv:  # builds models: all else here is quick, and does without torch
        from jepakit import partners

        return partners.command(discover(files), [word for word in argv if word != "--matrix"])
    for word in argv:
        if word not in ("--verbose", "-v"):
            hint = nearest(word, ["--verbose", "--matrix"])
            raise ConfigError(f"plugins knows no {word!r}{hint}; there are: --verbose, --matrix [kind=name ...]")
    listing.plugins(discover(files), verbose=bool(argv))
    return 0


def _data(argv: list[str], files: list[Path]) -> int:
    _, rest = _one_of("data", ("check",), argv)
    from jepakit.config import resolve

    chosen = any(each.startswith(("data=", "recipe=")) for each in rest)
    config = resolve(rest if chosen else ["data=folder", *rest], files)
    from jepakit.data import check

    return check.command(config["data"])


def _new(argv: list[str], files: list[Path]) -> int:
    from jepakit.new import KINDS, new

    kind, rest = _one_of("new", KINDS, argv)
    if not 1 <= len(rest) <= 2:
        raise ConfigError(f"new {kind} needs a name: jepakit new {kind} NAME [FOLDER]")
    for path in new(kind, rest[0], Path(rest[1]) if len(rest) > 1 else None):
        print(path)
    return 0


def _doctor(argv: list[str], files: list[Path]) -> int:
    if argv:
        raise ConfigError(f"doctor takes no arguments, but was given {argv[0]!r}")
    from jepakit import doctor

    return doctor.command(files)


def _demo(argv: list[str], files: list[Path]) -> int:
    from jepakit import demo

    return demo.command(argv)


def _one_of(verb: str, choices: Sequence[str], argv: list[str]) -> tuple[str, list[str]]:
    word = argv[0] if argv else ""
    if word not in choices:
        said = f"{verb} knows no {word!r}{nearest(word, choices)}" if word else f"{verb} what?"
        raise ConfigError(f"{said}; there are: {', '.join(choices)}")
    return word, argv[1:]


def _elsewhere(place: str) -> Verb:
    """A verb that lies in another module, which is imported when it is called."""
    module, _, name = place.partition(":")
    return lambda argv, files: getattr(importlib.import_module(module), name)(argv, files)


VERBS: dict[str, Verb] = {
    "train": _elsewhere("jepakit.launch:train"),
    "slurm": _elsewhere("jepakit.slurm:command"),
    "plan": _elsewhere("jepakit.plan.entry:command"),
    "eval": _eval,
    "compare": _elsewhere("jepakit.evaluate.compare:command"),
    "health": _elsewhere("jepakit.health.entry:command"),
    "bench": _elsewhere("jepakit.bench.entry:command"),
    "features": _elsewhere("jepakit.weights.features:command"),
    "inspect": _elsewhere("jepakit.weights.entry:inspect"),
    "import": _elsewhere("jepakit.weights.entry:import_"),
    "export": _elsewhere("jepakit.weights.entry:export"),
    "report": _elsewhere("jepakit.pictures.report:command"),
    "show": _show,
    "plugins": _plugins,
    "data": _data,
    "new": _new,
    "doctor": _doctor,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
