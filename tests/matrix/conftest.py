"""The matrix, once for all tests."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """See ``tests.matrix.whole``."""
    from tests.matrix.whole import Whole

    out = tmp_path_factory.mktemp("matrix") / "whole.pickle"
    done = subprocess.run(
        [sys.executable, "-m", "tests.matrix.whole", str(out)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return Whole(*pickle.loads(out.read_bytes()))
