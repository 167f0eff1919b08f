"""Fake distributions: what pip leaves in site-packages, written by hand."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., Path]

HOOK = "import jepakit\n\n@jepakit.hookimpl\ndef jepakit_register(registrar):\n    "


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(distribution, {"module.py": text}, point="module")``: on the path for the length of the test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = set(sys.modules)

    def write(distribution: str, files: dict[str, str], version: str = "1.0", **points: str) -> Path:
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        lines = "\n".join(f"{name} = {module}" for name, module in points.items())
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        for path, text in {
            **files,
            f"{info.name}/METADATA": metadata,
            f"{info.name}/entry_points.txt": f"[jepakit]\n{lines}\n",
        }.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        return site

    yield write
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]


@pytest.fixture
def hook() -> Callable[[str], str]:
    """A plugin module whose hook runs one statement, ``registrar.masker("x", "m:C")``."""
    return lambda statement: HOOK + statement + "\n"
