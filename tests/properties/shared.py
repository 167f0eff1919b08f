"""What the property tests share."""

from hypothesis import HealthCheck, settings

quick = settings(
    max_examples=40,
    derandomize=True,  # the same examples everywhere, always
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # what resets torch's state after each test
)
