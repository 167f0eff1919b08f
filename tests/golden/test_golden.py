"""A change of what training computes does not go unseen.

Where it is meant, ``python -m tests.golden.rewrite`` writes the file anew.
"""

import pytest
import torch

from tests.golden import curve

SAME_TORCH, ANOTHER = 1e-5, 1e-4
"""Relative tolerance. Products are summed in another order on other processors, and by other versions of torch."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return curve.losses(tmp_path_factory.mktemp("golden"))


def test_the_losses_of_a_tiny_run_are_what_they_were(found):
    version, expected = curve.read()
    tolerance = SAME_TORCH if version == torch.__version__ else ANOTHER
    assert found == pytest.approx(expected, rel=tolerance)


def test_a_run_repeats_itself_to_the_last_bit(found, tmp_path):
    assert [loss.hex() for loss in curve.losses(tmp_path)] == [loss.hex() for loss in found]


def test_the_losses_move(found):
    """Without this the file could hold anything."""
    assert len(found) == len(set(found)) == curve.STEPS
    assert min(found) > 0.01 and max(found) - min(found) > 0.01
