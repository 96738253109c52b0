"""`python -m boxtune` is `boxtune`."""

import sys

from boxtune.cli import main

if __name__ == "__main__":
    sys.exit(main())
