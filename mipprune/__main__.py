"""``python -m mipprune`` is the command ``mipprune``."""

import sys

from mipprune.cli import main

if __name__ == "__main__":
    sys.exit(main())
