"""``python -m jepakit`` is ``jepakit``."""

import sys

from jepakit.cli import main

if __name__ == "__main__":
    sys.exit(main())
