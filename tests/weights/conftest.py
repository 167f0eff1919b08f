"""A run, trained once for all who read one."""

from pathlib import Path

import pytest

from tests.weights import made


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run folder with two checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / made.run(patch, *made.settings("trainer.checkpoint_every=1"))
