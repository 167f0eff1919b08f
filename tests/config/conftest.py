"""One plugin and one folder of options that every test of the configuration can start from."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def files() -> list[Path]:
    """The stub plugin."""
    return [HERE / "stub.py"]


@pytest.fixture
def folders() -> list[Path]:
    """Options and recipes of one's own."""
    return [HERE / "options"]


@pytest.fixture
def resolve(files, folders):
    """``jepakit.config.resolve`` with both."""
    from jepakit import config

    return lambda *overrides, **more: config.resolve(overrides, files, folders, **more)


@pytest.fixture
def refused(resolve):
    """The line with which overrides on top of recipe=base are refused; paths of this folder are shortened."""
    from jepakit.errors import ConfigError

    def line(*overrides: str, base: bool = True) -> str:
        with pytest.raises(ConfigError) as caught:
            resolve(*(["recipe=base", "data.root=/x"] if base else []), *overrides)
        return str(caught.value).replace(f"{HERE}/", "")

    return line
