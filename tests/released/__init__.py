"""Released code, timed beside ours: each needs a checkout of it, none is part of the tests."""
