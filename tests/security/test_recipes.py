"""A recipe of a stranger runs nothing but registered components, whatever it says and wherever it says it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from jepakit.catalog import collect
from jepakit.config import jobs, prepare, resolve
from jepakit.errors import ConfigError

TRAP = "trap_that_is_imported"
PARTS = {
    **{"data": "world_plain", "tokenizer": "patch4", "masker": "multiblock_small", "encoder": "vit_mini"},
    **{"predictor": "vit_predictor_mini", "anti_collapse": "[ema_fast]"},
}
TARGET = "'_target_' is refused; a component is chosen by its registered name"
HYDRA = "of Hydra a file says hydra.sweeper.params alone"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A file ``mine.yaml`` with a text below the choices that every recipe makes. A module lies beside it, which is to
    be imported by nothing."""
    (tmp_path / f"{TRAP}.py").write_text("import pathlib\npathlib.Path('sprung').touch()\ndef go(**_): return print\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(text: str, *defaults: str, name: str = "mine.yaml") -> Path:
        chosen = "".join(f"  - override /{group}: {choice}\n" for group, choice in PARTS.items())
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(f"  - {each}\n" for each in defaults).join(["defaults:\n", chosen]) + text)
        return tmp_path / name

    return write


@pytest.fixture(autouse=True)
def nothing_sprang(tmp_path: Path):
    """No trap was sprung."""
    yield
    assert TRAP not in sys.modules and not (tmp_path / "sprung").exists()


def refused(recipe: Path, *overrides: str, folders: tuple[Path, ...] = ()) -> str:
    """The one line with which a recipe is refused."""
    with pytest.raises(ConfigError) as caught:
        resolve([f"recipe={recipe}", *overrides], folders=folders)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{recipe.parent}/", "")


def test_without_a_trap_it_is_accepted(recipe):
    """Or nothing below would mean anything."""
    assert resolve([f"recipe={recipe('seed: 7')}"])["seed"] == 7
    sweep = recipe("hydra: {sweeper: {params: {seed: '1,2'}}}")
    found, overrides = prepare([f"recipe={sweep}"])
    assert ["seed=1" in job for job in jobs(overrides, found)] == [True, False]


CALLS = "{'()': trap_that_is_imported.go}"
TELLS_HYDRA = {
    "its logging": (f"hydra: {{job_logging: {{version: 1, handlers: {{x: {CALLS}}}}}}}", "hydra.job_logging.version"),
    "its own logging": (f"hydra: {{hydra_logging: {{handlers: {{x: {CALLS}}}}}}}", "hydra.hydra_logging.handlers.x.()"),
    "a callback": ("hydra: {callbacks: {x: '${oc.create:{_target_: trap_that_is_imported.go}}'}}", "hydra.callbacks.x"),
    "variables": ("hydra: {job: {env_set: {JEPAKIT_PLUGIN_FILES: x.py}}}", "hydra.job.env_set.JEPAKIT_PLUGIN_FILES"),
    "variables that it notes": ("hydra: {job: {env_copy: [HOME]}}", "hydra.job.env_copy"),
    "a launcher": ("hydra: {launcher: {submitit_folder: /}}", "hydra.launcher.submitit_folder"),
    "a launcher to make": ("hydra: {launcher: '${oc.create:{}}'}", "hydra.launcher"),
    "another sweeper": ("hydra: {sweeper: {max_batch_size: 3}}", "hydra.sweeper.max_batch_size"),
    "sweeps to make": ("hydra: {sweeper: {params: '${oc.create:{}}'}}", "hydra.sweeper.params"),
    "a place to write": ("hydra: {sweep: {dir: /tmp}}", "hydra.sweep.dir"),
    "where to look": ("hydra: {searchpath: ['file:///']}", "hydra.searchpath"),
    "all at once": ("hydra: '${oc.create:{}}'", "hydra"),
}


@pytest.mark.parametrize("what", TELLS_HYDRA)
def test_what_it_tells_hydra(what, recipe):
    """Hydra calls what its logging and callbacks name, and sets variables, of which one names plugins."""
    text, key = TELLS_HYDRA[what]
    assert refused(recipe(text)) == f"mine.yaml: {key} is refused; {HYDRA}"


@pytest.mark.parametrize("key", ["+hydra.job.env_set.X", "hydra.callbacks", "recipe@hydra.callbacks"])
def test_what_is_swept_over(key, recipe):
    line = refused(recipe(f"hydra: {{sweeper: {{params: {{'{key}': '1,2'}}}}}}"))
    assert line == f"mine.yaml: {key} is refused: what is swept over are settings of jepakit's"


@pytest.mark.parametrize("entry", ["/recipe@hydra.callbacks: other", "override /hydra/job_logging: default"])
def test_what_it_puts_together(entry, recipe, tmp_path):
    """Another recipe in a place of Hydra's."""
    other = tmp_path / "more" / "recipe" / "other.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("x: {y: '${oc.create:{_target_: trap_that_is_imported.go}}'}\n")
    line = refused(recipe("seed: 1", entry), folders=(tmp_path / "more",))
    assert line == f"mine.yaml: {entry.partition(':')[0]} is refused; {HYDRA}"


@pytest.mark.parametrize(
    "override",
    [
        "+recipe@hydra.callbacks=mine",
        "+masker@hydra.callbacks.x=multiblock",
        "+hydra.job.env_set.JEPAKIT_PLUGIN_FILES=x.py",
        "+hydra.callbacks={x: {y: 1}}",
        "hydra/job_logging=default",
        "hydra.job.chdir=true",
    ],
)
def test_what_a_command_line_tells_hydra(override, recipe):
    assert refused(recipe("seed: 1"), override).startswith(f"{override} is refused; of Hydra a command line says: ")


TARGETS = {
    "on top": "_target_: trap_that_is_imported.go",
    "in a component": "masker: {_target_: trap_that_is_imported.go}",
    "in a list": "published: [{measure: x, source: y, when: {_target_: trap_that_is_imported.go}}]",
    "in lists of lists": "data: {crop_scale: [[{_target_: trap_that_is_imported.go}]]}",
    "in a branch": "branches: {one: {masker: {name: multiblock, _target_: trap_that_is_imported.go}}}",
    "under an anchor": "optim: &a {lr: 1.0}\ntrainer: {<<: {_target_: trap_that_is_imported.go}}",
}


@pytest.mark.parametrize("where", TARGETS)
def test_a_target(where, recipe):
    assert refused(recipe(TARGETS[where])) == f"mine.yaml: {TARGET}"


@pytest.mark.parametrize(
    "value", ["${oc.create:{_target_: x.go, name: multiblock}}", "${oc.decode:'{_target_: x.go}'}"]
)
def test_a_target_that_comes_from_an_interpolation(value, recipe):
    line = refused(recipe(f'masker: "{value}"'))
    assert "_target_" in line or "masker" in line


TAGS = [
    "!!python/object/apply:os.system ['touch sprung']",
    "!!python/object/new:os.system ['touch sprung']",
    "!!python/name:trap_that_is_imported.go",
    "!!python/module:trap_that_is_imported",
    "!!python/object:trap_that_is_imported.go {}",
    "!trap x",
]


@pytest.mark.parametrize("tag", TAGS)
def test_tags(tag, recipe, tmp_path):
    """In a recipe, and in an option of --config-dir."""
    assert refused(recipe(f"run: {tag}")).startswith("mine.yaml is not valid YAML: could not determine a constructor")
    option = tmp_path / "more" / "masker" / "own.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(f"name: multiblock\nmin_keep: {tag}\n")
    line = refused(recipe("seed: 1"), "masker=own", folders=(tmp_path / "more",))
    assert "own.yaml is not valid YAML" in line


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)
)
BOMBS = {
    "laughs": (LAUGHS, "more than 100,000 are refused"),
    "laughs by merging": (LAUGHS.replace("[", "{x: [").replace("]", "]}"), "more than 100,000 are refused"),
    "itself": ("a: &a [*a]", "more than 100,000 are refused"),
    "depth": ("a: " + "[" * 5000 + "]" * 5000, "is nested more than"),
    "bytes": ("run: \0", "is not valid YAML"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb, recipe):
    """Refused before they unfold: 8 ** 12 values would take all memory."""
    text, why = BOMBS[bomb]
    assert why in refused(recipe(text))


@pytest.mark.parametrize(
    "value",
    ["${eval:1+1}", "${hydra:runtime.cwd}", "${python:os}", "${oc.env:NOT_THERE}", "${oc.dict.keys:nowhere}", "${}"],
)
def test_interpolations_that_mean_nothing_here(value, recipe, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # where no sweep was made in this process
    assert "run" in refused(recipe(f'run: "{value}"'))


def test_one_that_asks_for_a_variable_is_given_it_and_nothing_else(recipe, monkeypatch):
    monkeypatch.setenv("IMAGES", "/pictures")
    monkeypatch.setenv("TOKEN", "hunter2")
    made = resolve([f"recipe={recipe('run: ${oc.env:IMAGES}')}"])
    assert made["run"] == "/pictures" and "hunter2" not in str(made)


NAMES = [
    *(
        "recipe=../../etc/passwd",
        "recipe=/etc/passwd",
        "recipe=..",
        "masker=os:system",
        "masker=os.system",
        "masker=..",
    ),
    *("data=folder/../world", "tokenizer=trap_that_is_imported:go", "encoder=file:///x", "anti_collapse=[os:system]"),
    *("recipe=mine@hydra", "masker=pkg://x", "masker=.."),
]


@pytest.mark.parametrize("override", NAMES)
def test_names_that_are_paths_or_places(override, recipe):
    given = override.startswith("recipe=")
    with pytest.raises(ConfigError) as caught:
        resolve([override] if given else [f"recipe={recipe('seed: 1')}", override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["os:system", "os.system", f"{TRAP}:go", "../x", "multiblock\n", "", 3, None, ["x"]])
def test_names_in_a_configuration(name, recipe):
    """As a run's folder holds them, which nobody has composed."""
    from jepakit.strict import check

    made: dict[str, Any] = resolve([f"recipe={recipe('seed: 1')}"])
    with pytest.raises(ConfigError) as caught:
        check(made | {"masker": {"name": name}}, collect())
    assert "\n" not in str(caught.value)
