"""What the property tests share."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "jepakit-hypothesis")  # nothing is left in the checkout

quick = settings(
    max_examples=40,
    derandomize=True,  # the same examples everywhere, always
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # what resets torch's state after each test
)
