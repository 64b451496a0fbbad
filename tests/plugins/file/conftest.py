"""What the tests of the file store share."""

import pytest
from chathistory_file import FileStore


@pytest.fixture
def store(tmp_path):
    with FileStore(tmp_path / "history") as store:
        yield store
