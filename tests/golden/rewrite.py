"""Write the losses anew, where a change of them is meant: ``python -m tests.golden.rewrite`` in the checkout's root.

The reason belongs into the commit's message.
"""

import tempfile
from pathlib import Path

from tests.golden import curve

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = curve.losses(Path(folder))
    before = curve.read()[1] if curve.FILE.exists() else found
    curve.write(found)
    print(f"{curve.FILE}: largest change of a loss {max(abs(a - b) for a, b in zip(found, before, strict=True)):.3g}")
