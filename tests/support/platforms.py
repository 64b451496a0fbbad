"""What a platform lacks: tests that need it are skipped there, and nowhere else."""

from __future__ import annotations

import sys

import pytest

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX, as the file: backend does")
needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs /proc or os.fdatasync, which other systems lack"
)
