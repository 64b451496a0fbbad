"""The page on the fake is correct: its Python runs, and it names every rule and option."""

from __future__ import annotations

import re
from pathlib import Path

from chathistory.testing import fake_api

PAGE = (Path(__file__).parents[3] / "docs" / "fake-api.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 3
    exec(compile("\n".join(blocks), "docs/fake-api.md", "exec"), {})


def test_every_public_name_is_on_the_page():
    missing = [name for name in fake_api.__all__ if name not in PAGE and name not in ("Recorded", "Rule")]
    assert missing == []
