"""Finding plugins: each by itself, all or nothing, and never in silence."""

import sys
from pathlib import Path

import pytest

from jepakit.errors import ConfigError
from jepakit.plugins import Plugins, Status, discover


def status(plugins: Plugins, name: str) -> Status:
    return next(each for each in plugins.statuses if each.name == name)


def test_own_plugins_come_through_entry_points_and_first() -> None:
    plugins = discover()
    own = [each for each in plugins.statuses if each.distribution == "jepakit"]
    assert {"vit", "multiblock", "ema"} <= {each.name for each in own}
    assert plugins.statuses[: len(own)] == own
    assert all(each.state == "loaded" for each in own), [each.detail for each in own]
    assert plugins.packages[0] == ("jepakit", "jepakit")
    assert ("jepakit_vit", "vit") in plugins.packages


def test_found_once_and_remembered(install, hook) -> None:
    first = discover()
    install("late", {"late.py": hook('registrar.masker("late", "late:Late")')}, late="late")
    assert discover() is first


def test_provenance(install, hook) -> None:
    install("Toy.Masker", {"toy.py": hook('registrar.masker("toy", "toy:Toy")')}, version="0.3", toy="toy")
    plugins = discover()
    component = plugins.get("masker", "toy")
    assert (component.plugin, component.distribution, component.version) == ("toy", "Toy.Masker", "0.3")
    assert "toy" in plugins.names("masker")
    assert status(plugins, "toy").state == "loaded"


def test_broken_plugin_is_alone_in_its_failure(install, hook) -> None:
    install("bad-dist", {"bad.py": "import no_such_module\n"}, version="2.0", bad="bad")
    install("good-dist", {"good.py": hook('registrar.masker("good", "good:Good")')}, good="good")
    plugins = discover()
    broken = status(plugins, "bad")
    assert broken.state == "failed"
    assert broken.detail == "ModuleNotFoundError: No module named 'no_such_module'"
    assert 'bad.py", line 1' in broken.traceback
    assert plugins.get("masker", "good")
    with pytest.raises(
        ConfigError, match=r"(?s)no masker is named 'goood' \(did you mean 'good'\?\).*bad-dist 2.0.*no_such"
    ):
        plugins.get("masker", "goood")


def test_nothing_is_registered_by_halves(install, hook) -> None:
    install("half", {"half.py": hook('registrar.masker("half", "h:H"); raise RuntimeError("then this")')}, half="half")
    plugins = discover()
    assert "half" not in plugins.names("masker")
    assert status(plugins, "half").detail == "RuntimeError: then this"


@pytest.mark.parametrize(("wanted", "state"), [((1, 0), "loaded"), ((1, 99), "incompatible"), ((2, 0), "incompatible")])
def test_api_version(install, hook, wanted, state) -> None:
    install("api", {"api.py": f"JEPAKIT_API = {wanted}\n" + hook('registrar.masker("api", "a:A")')}, api="api")
    plugins = discover()
    assert status(plugins, "api").state == state
    assert ("api" in plugins.names("masker")) == (state == "loaded")
    assert state == "loaded" or str(wanted) in status(plugins, "api").detail


def test_misspelt_hook_is_reported_with_the_right_name(install) -> None:
    install(
        "typo", {"typo.py": "import jepakit\n@jepakit.hookimpl\ndef jepakit_regster(registrar): ...\n"}, typo="typo"
    )
    detail = status(discover(), "typo").detail
    assert "unknown hook 'jepakit_regster' (did you mean 'jepakit_register'?)" in detail


def test_wrong_argument_of_the_hook_is_reported(install) -> None:
    install("arg", {"arg.py": "import jepakit\n@jepakit.hookimpl\ndef jepakit_register(register): ...\n"}, arg="arg")
    assert "register" in status(discover(), "arg").detail
    assert status(discover(), "arg").state == "failed"


def test_hook_without_its_mark_is_reported(install) -> None:
    install("bare", {"bare.py": 'def jepakit_register(registrar): registrar.masker("bare", "b:B")\n'}, bare="bare")
    assert "no jepakit_register with @jepakit.hookimpl" in status(discover(), "bare").detail


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ('registrar.maskers("x", "m:C")', "registrar knows no kind 'maskers' (did you mean 'masker'?)"),
        ('registrar.masker("check-er", "m:C")', "a name is letters, digits and _"),
        ('registrar.masker("x", "m.C")', "'m.C' is neither a class nor a string 'package.module:Class'"),
        ('registrar.masker("x", print)', "is neither a class nor a string"),
        ('registrar.masker("x", "m:C"); registrar.masker("x", "m:D")', "masker 'x' is registered twice"),
    ],
)
def test_registrar_refuses(install, hook, statement, message) -> None:
    install("odd", {"odd.py": hook(statement)}, odd="odd")
    assert message in status(discover(), "odd").detail


def test_two_owners_of_a_name_are_both_named(install, hook) -> None:
    text = hook('registrar.masker("board", "m:C")')
    install("zz-dist", {"zz.py": text}, version="1.1", zz="zz")
    install("aa-dist", {"aa.py": text}, version="2.2", aa="aa")
    plugins = discover()
    assert [status(plugins, name).state for name in ("aa", "zz")] == ["loaded", "failed"]
    with pytest.raises(ConfigError) as error:
        plugins.get("masker", "board")
    for words in ("aa-dist 2.2", "zz-dist 1.1", "JEPAKIT_DISABLE_PLUGINS=aa-dist", "JEPAKIT_DISABLE_PLUGINS=zz-dist"):
        assert words in str(error.value)


def test_the_way_out_of_two_owners(install, hook, monkeypatch) -> None:
    install("rival", {"rival.py": hook('registrar.masker("multiblock", "rival:R")')}, rival="rival")
    with pytest.raises(ConfigError, match="JEPAKIT_DISABLE_PLUGINS=multiblock or JEPAKIT_DISABLE_PLUGINS=rival"):
        discover().get("masker", "multiblock")
    monkeypatch.setenv("JEPAKIT_DISABLE_PLUGINS", "multiblock")
    assert discover().get("masker", "multiblock").distribution == "rival"


@pytest.mark.parametrize("name", ["toy", "Toy_Dist"])
def test_disabled_by_plugin_or_distribution_and_not_imported(install, monkeypatch, name) -> None:
    install("toy-dist", {"toy_off.py": "raise RuntimeError\n"}, toy="toy_off")
    monkeypatch.setenv("JEPAKIT_DISABLE_PLUGINS", f"other-one,{name}")
    with pytest.warns(UserWarning, match="names 'other-one', which is no plugin"):
        plugins = discover()
    assert status(plugins, "toy").state == "disabled"
    assert "toy_off" not in sys.modules


def test_no_plugins_leaves_jepakits_own(install, hook, monkeypatch, tmp_path) -> None:
    install("toy-dist", {"toy.py": hook('registrar.masker("toy", "m:C")')}, toy="toy")
    file = tmp_path / "mine.py"
    file.write_text(hook('registrar.masker("mine", "m:C")'))
    monkeypatch.setenv("JEPAKIT_NO_PLUGINS", "1")
    plugins = discover([file])
    assert status(plugins, "toy").state == status(plugins, "mine").state == "disabled"
    assert plugins.get("masker", "multiblock").distribution == "jepakit"


def test_plugin_file(tmp_path, hook, monkeypatch) -> None:
    file = tmp_path / "my mask.py"
    file.write_text(
        "class Mine:\n    def __init__(self, cell: int = 3): ...\n" + hook('registrar.masker("mine", Mine)')
    )
    component = discover([file]).get("masker", "mine")
    assert [(each.name, each.default) for each in component.arguments()] == [("cell", 3)]
    assert component.distribution == str(file)
    assert component.load().__name__ == "Mine"
    assert discover().get("masker", "mine") is component, "a child process finds it in the environment"


def test_plugin_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.py: there is no such file"):
        discover([tmp_path / "nowhere.py"])


def test_missing_module_of_a_lazy_component_is_named(install, hook) -> None:
    text = "import no_such_dependency\nclass Far:\n    def __init__(self, cell: int = 2): ...\n"
    site = {"lazy/__init__.py": hook('registrar.masker("far", "lazy.far:Far")'), "lazy/far.py": text}
    install("lazy-dist", site, version="0.9", lazy="lazy")
    component = discover().get("masker", "far")
    assert [each.name for each in component.arguments()] == ["cell"], "its configuration is read without importing it"
    with pytest.raises(ConfigError, match=r"masker 'far' of plugin 'lazy' \(lazy-dist 0.9\) needs module 'no_such_dep"):
        component.load()


def test_class_that_a_lazy_component_does_not_have(install, hook) -> None:
    files = {"lazy2.py": hook('registrar.masker("near", "lazy2:Naer")') + "class Near: ...\n"}
    install("lazy2", files, lazy2="lazy2")
    with pytest.raises(ConfigError, match=r"no class 'Naer' \(did you mean 'Near'\?\)"):
        discover().get("masker", "near").load()


def test_a_package_of_recipes_alone_is_a_plugin(install) -> None:
    install("papers", {"papers/__init__.py": "", "papers/recipes/mine.yaml": "seed: 1\n"}, papers="papers")
    plugins = discover()
    assert status(plugins, "papers").state == "loaded"
    assert ("papers", "papers") in plugins.packages
