"""The complete store in `docs/writing-a-backend.md` passes the contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.core import Option

from chathistory.cli.certify import certify
from chathistory.testing import CertifyHooks, HistoryStoreContract
from chathistory.testing.certify import pytest_addoption
from chathistory.testing.guarantees import LISTING

PAGE = (Path(__file__).parents[3] / "docs" / "writing-a-backend.md").read_text()


class TestDictStore(HistoryStoreContract):
    @pytest.fixture
    def store(self):
        page = {}
        exec(re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL).group(1), page)
        assert page["chathistory_store"]("dict") is page["DictStore"]
        with page["DictStore"]() as store:
            yield store


def test_the_page_names_every_hook_and_option():
    for name in CertifyHooks.__slots__:
        assert f"`{name}(" in PAGE, name
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    names = [name for option in parser.getgroup("chathistory").options for name in option.names()]
    assert len(names) == 7
    for name in names:
        assert f"{name}=" in PAGE or f"`{name}`" in PAGE, name
    for option in certify.params:
        assert not isinstance(option, Option) or option.name in {"help", "debug"} or option.opts[0] in PAGE, option.name


def test_the_option_only_takes_the_number_of_every_guarantee():
    [only] = [param for param in certify.params if param.name == "only"]
    assert (only.type.min, only.type.max) == (1, LISTING)
    assert f"{LISTING}: the listing" in only.help
