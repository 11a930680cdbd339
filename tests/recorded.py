"""What was recorded of the released code, or published with it; it lies outside the repository.

Where it is absent, what needs it is skipped, or fails with LONGVIE_REQUIRE_GOLDEN=1, which says
that it should be there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[1].parent / "shared"
GOLDEN = Path(os.environ.get("LONGVIE_GOLDEN_DIR", _SHARED / "golden"))
EXAMPLE = Path(os.environ.get("LONGVIE_EXAMPLE_DIR", _SHARED / "released-example")) / "ride_horse"
# Read here: while a test runs, no LONGVIE_* variable is set.
REQUIRED = os.environ.get("LONGVIE_REQUIRE_GOLDEN", "0") not in ("", "0")


def golden_file(name: str) -> Path:
    """Return the file of golden vectors of a name."""
    return _present(GOLDEN / f"{name}.safetensors", "golden vectors", "LONGVIE_GOLDEN_DIR")


def released_example() -> Path:
    """Return the folder of the released example: `cond.json`, its clips and its first picture."""
    return _present(EXAMPLE / "cond.json", "released example", "LONGVIE_EXAMPLE_DIR").parent


def _present(path: Path, what: str, variable: str) -> Path:
    if path.is_file():
        return path
    if REQUIRED:
        pytest.fail(f"LONGVIE_REQUIRE_GOLDEN is set, but there is no {path}", pytrace=False)
    pytest.skip(f"no {what} in {path.parent} (set {variable})")
