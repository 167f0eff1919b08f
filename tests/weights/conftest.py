"""A run, trained once for all who read one."""

from pathlib import Path

import pytest

from tests.weights import made, video


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run folder with two checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / made.run(patch, *made.settings("trainer.checkpoint_every=1"))


@pytest.fixture(scope="session")
def trained_on_clips(tmp_path_factory) -> Path:
    """A run folder of a video model; not to be changed."""
    folder = tmp_path_factory.mktemp("clips")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / made.run(patch, *made.settings(*video.CLIPS, *video.MODELS["vjepa2"], "trainer.steps=1"))
