"""Makes `compat` importable: it stands beside src and is run from the root, so it is no installed package.

Its folder must stand on the path as a package: tests/ stands there too, and tests/compat would be found under its name.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
