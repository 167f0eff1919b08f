"""Each thing that a person can get wrong: exactly one line."""

import pytest

STRIPES = "known: width, share, way"
MASKERS = "there are: {maskers}"  # filled in from the catalog, which grows with what is shipped
TOP = (
    "known: seed, run, distance, distance_weight, distance_levels, data, views, tokenizer, masker, encoder, predictor, "
    "anti_collapse, branches, optim, trainer, start, logger, evaluate, health, published, recipe"
)
TARGET = "'_target_' is refused; a component is chosen by its registered name"

LINES = {
    "masker.widht=3": f"unknown key 'masker.widht' (did you mean 'width'?); {STRIPES}",
    "+masker.widht=3": f"unknown key 'masker.widht' (did you mean 'width'?); {STRIPES}",
    "++masker.widht=3": f"unknown key 'masker.widht' (did you mean 'width'?); {STRIPES}",
    "tainer.steps=3": f"unknown key 'tainer' (did you mean 'trainer'?); {TOP}",
    "+sead=3": f"unknown key 'sead' (did you mean 'seed'?); {TOP}",
    "+data.rot.deep=3": "unknown key 'data.rot' (did you mean 'root'?); known: root, clip, batch_size, size, workers, "
    "crop_scale, crop_ratio, flip, mean, std, max_bad, timeout",
    "anti_collapse.still.pul=1": "unknown key 'anti_collapse.still.pul' (did you mean 'pull'?); known: pull",
    "anti_collapse.apart.push=1": "anti_collapse.apart is not part of this run: choose it, anti_collapse=[still,apart]",
    "+anti_collapse.apart.push=1": "anti_collapse.apart is not part of this run: choose it, "
    "anti_collapse=[still,apart]",
    "~masker.width": "~masker.width is refused: a setting can be changed, not taken away",
    "~optim": "~optim is refused: a setting can be changed, not taken away",
    "masker=stripe": f"no masker 'stripe' (did you mean 'stripes'?); {MASKERS}",
    "recipe=bse": "recipe is given twice: recipe=base and recipe=bse",
    "masker=null": "masker=null chooses nothing: write masker=NAME with one of: {maskers}",
    "~masker": "~masker chooses nothing: write masker=NAME with one of: {maskers}",
    "masker=[stripes,thin]": "masker=[stripes,thin]: only one masker can be chosen; only anti_collapse composes",
    "masker=stripes,thin": "masker=stripes,thin is several values: add -m to try each, or write [...] for a list",
    "masker.name=multiblock": "masker.name=multiblock is no way to choose: write masker=NAME",
    "anti_collapse=[still,stiller]": "anti_collapse=[still,stiller]: 'still' and 'stiller' are one strategy; choose "
    "either",
    "masker.way=row": "masker.way=row is no choice (did you mean 'rows'?); there are: rows, columns",
    "masker.width=wide": "masker.width: Value 'wide' of type 'str' could not be converted to Integer",
    "data.flip=maybe": "data.flip: Value 'maybe' is not a valid bool (type str)",
    "seed=null": "seed: field 'seed' is not Optional",
    "trainer=5": "trainer holds several settings: write trainer.epochs=VALUE, and the like",
    "data.batch_size=0": "data.batch_size=0 is out of range: it has to be at least 1",
    "trainer.epochs=0": "trainer.epochs=0.0 is out of range: it has to be above 0, and finite",
    "optim.lr=nan": "optim.lr=nan is out of range: it has to be at least 0",
    "optim.betas=[0.9,1.0]": "optim.betas=[0.9, 1.0] is out of range: it has to be below 1",
    "data.crop_scale=[1,0.5]": "data.crop_scale=[1.0, 0.5] is out of range: it has to be [low, high] with "
    "0 < low <= high <= 1",
    "data.crop_ratio=[1]": "data.crop_ratio=[1.0] is out of range: it has to be [low, high] with 0 < low <= high",
    "data.mean=[0.5]": "data.std=[0.229, 0.224, 0.225] is out of range: it has to be above 0, one for each number in "
    "data.mean",
    "trainer.precision=fp16": "trainer.precision=fp16 is no choice (did you mean 'bf16'?); there are: bf16, fp32",
    "distance=smoothl1": "distance=smoothl1 is no choice (did you mean 'smooth_l1'?); there are: smooth_l1, l2, l1",
    "trainer.device=gpu": "trainer.device=gpu is out of range: it has to be auto, cpu, cuda or cuda:N",
    "data.root=/y": "data.root is given twice: data.root=/x and data.root=/y",
    "seed": "cannot read 'seed': a setting is written key=value",
    "run=/a=b": "cannot read 'run=/a=b': a value with special characters is written in quotes, key='\"value\"'",
    "+masker._target_=os.system": f"+masker._target_=os.system: {TARGET}",
    "masker={_target_: os.system}": f"masker={{_target_: os.system}}: {TARGET}",
    "+hydra.launcher._target_=os.system": f"+hydra.launcher._target_=os.system: {TARGET}",
    "run=${eval:1+1}": "run: Unsupported interpolation type eval",
    "run=${oc.env:NOT_THERE}": "run: KeyError raised while resolving interpolation: "
    "\"Environment variable 'NOT_THERE' not found\"",
    "run=${nowhere}": "run: Interpolation key 'nowhere' not found",
    "hydra.searchpath=[pkg://x]": "hydra.searchpath=[pkg://x] is refused: add a folder of options with "
    "--config-dir FOLDER",
    "masker=unknown_key": "options/masker/unknown_key.yaml: unknown key 'wdith' (did you mean 'width'?); known: name, "
    "width, share, way",
    "masker=wrong_type": "options/masker/wrong_type.yaml: width: Value 'wide' of type 'str' could not be converted to "
    "Integer",
    "masker=nameless": "options/masker/nameless.yaml: it needs a key 'name', the component that it is a variant of",
    "masker=target": f"options/masker/target.yaml: {TARGET}",
}


@pytest.fixture
def maskers(files, folders) -> str:
    """All maskers that can be chosen, as a line lists them."""
    from jepakit.catalog import collect

    return ", ".join(collect(files, folders).names("masker"))


@pytest.mark.parametrize("override", LINES)
def test_one_line_for_an_override(refused, maskers, override):
    assert refused(override) == LINES[override].replace("{maskers}", maskers)


RECIPES = {
    "recipe=bse": "no recipe 'bse' (did you mean 'base'?); there are: ablations/thin, base, fields, lost, misspelt, "
    "twice",
    "recipe=base": "data.root is not set, and data=shelf has no default: add data.root=VALUE",
    "recipe=misspelt": "recipe misspelt: unknown key 'optim.lrr' (did you mean 'lr'?); known: lr, start_lr, final_lr, "
    "decay, warmup, stretch, weight_decay, betas, eps, momentum, clip, clip_each, clip_after",
    "recipe=lost": f"no masker 'stripe' (did you mean 'stripes'?); {MASKERS}",
    "recipe=twice": "options/recipe/twice.yaml: 'still' and 'stiller' are one strategy; choose either",
    "recipe=fields": "masker.name=multiblock is no way to choose: write masker=multiblock",
    "recipe=nowhere.yaml": "recipe=nowhere.yaml: there is no such file",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_line_for_a_recipe(refused, maskers, recipe):
    line = refused(recipe, base=False)
    if recipe == "recipe=bse":  # which others are listed depends on what is shipped
        assert line.startswith("no recipe 'bse' (did you mean 'base'?); there are: ablations/")
        assert ", ablations/thin, " in line and ", base, " in line
    else:
        assert line == RECIPES[recipe].replace("{maskers}", maskers)


def test_a_key_twice_in_a_file(refused):
    line = refused("masker=repeated")
    assert line.startswith("options/masker/repeated.yaml is not valid YAML: ") and "\n" not in line


def test_a_missing_folder_of_options():
    from pathlib import Path

    from jepakit.config import resolve
    from jepakit.errors import ConfigError

    with pytest.raises(ConfigError, match="^--config-dir /nowhere: there is no such folder$"):
        resolve([], folders=[Path("/nowhere")])


def test_an_option_that_shadows_a_component_names_both_owners(resolve, folders, tmp_path):
    from jepakit.config import resolve as bare
    from jepakit.errors import ConfigError

    (tmp_path / "masker").mkdir()
    file = tmp_path / "masker" / "multiblock.yaml"
    file.write_text("name: multiblock\n")
    with pytest.raises(ConfigError) as caught:
        bare([], folders=[tmp_path])
    expected = (
        f"masker=multiblock has two owners: plugin 'multiblock' and {file}; rename one, or disable one of the plugins"
    )
    assert str(caught.value) == expected


def test_a_folder_that_is_no_group(tmp_path):
    from jepakit.config import resolve
    from jepakit.errors import ConfigError

    (tmp_path / "maskr").mkdir()
    (tmp_path / "maskr" / "x.yaml").write_text("name: multiblock\n")
    with pytest.raises(ConfigError, match=r"no config group 'maskr' \(did you mean 'masker'\?\)"):
        resolve([], folders=[tmp_path])


def test_a_plugin_that_failed_is_named_where_its_option_is_missed(tmp_path):
    from jepakit.config import resolve
    from jepakit.errors import ConfigError

    (tmp_path / "broken.py").write_text("import not_there_at_all\n")
    with pytest.raises(ConfigError) as caught:
        resolve(["masker=chekers"], [tmp_path / "broken.py"])
    line = str(caught.value)
    assert line.startswith("no masker 'chekers'; there are: ") and "plugin 'broken'" in line
    assert "is failed: ModuleNotFoundError: No module named 'not_there_at_all'" in line
