"""What every test relies on: no state leaks from one to the next, and a skipped test is never silent.

Nothing of jepakit is imported up here: its shapes are checked by an import hook that pytest sets up later.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and clips that lies beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real images in ../shared/data beside the checkout")
    return folder


@pytest.fixture(autouse=True)
def clean_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugins' variables and caches, and torch's global state, are after a test what they were before."""
    for name in ("JEPAKIT_DISABLE_PLUGINS", "JEPAKIT_NO_PLUGINS", "JEPAKIT_PLUGIN_FILES"):
        monkeypatch.setenv(name, "")  # set, so that a value a test's call leaves behind is undone too
    before = _torch_state()
    yield
    if "jepakit.plugins" in sys.modules:
        sys.modules["jepakit.plugins"].forget()
    if before:
        _restore_torch(before)


def _torch_state() -> dict:
    if "torch" not in sys.modules:
        return {}
    import torch

    return {
        "rng": torch.get_rng_state(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _restore_torch(state: dict) -> None:
    import torch

    torch.set_rng_state(state["rng"])
    torch.set_num_threads(state["threads"])
    torch.set_default_dtype(state["dtype"])
    torch.set_grad_enabled(state["grad"])
    torch.use_deterministic_algorithms(state["deterministic"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked ``gpu`` is skipped where there is none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """What is there by now stays: to go through it again and again would take a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """Libraries say at the end what was never collected."""
    gc.unfreeze()


def _skipped(reporter: "pytest.TerminalReporter") -> list[tuple[str, str, bool]]:
    """Every skipped test: where, why, and whether for want of a GPU."""
    reports = reporter.stats.get("skipped", [])
    return [(each.nodeid, str(each.longrepr[2]).removeprefix("Skipped: "), "gpu" in each.keywords) for each in reports]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under continuous integration (CI=true) only what needs a GPU may be skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    forbidden = [where for where, _, gpu in _skipped(reporter) if not gpu]
    if os.environ.get("CI") == "true" and forbidden and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """End with the skipped tests and why."""
    skipped = _skipped(terminalreporter)
    strict = os.environ.get("CI") == "true"
    terminalreporter.section(f"skipped: {len(skipped)}")
    for where, why, gpu in skipped:
        verdict = "" if gpu or not strict else " [a failure here: CI=true allows it only for want of a GPU]"
        terminalreporter.line(f"{where}: {why}{verdict}")
