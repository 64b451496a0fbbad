"""The campaigns run, and detect the faults they look for."""

import json

import pytest

from tests.campaigns import kills

pytestmark = pytest.mark.wide

WHOLE = [(0, 0, 1), (1, 0, 2), (1, 1, 2), (2, 0, 1)]


@pytest.mark.parametrize("reported", [1, 2])
def test_what_was_reported_and_perhaps_one_batch_more_is_right(reported):
    assert kills.verdict(WHOLE, reported) == 3


@pytest.mark.parametrize(
    ("found", "reported", "words"),
    [
        (WHOLE, 3, "batch 3 was acknowledged"),
        (WHOLE, 0, "batch 0 was acknowledged, but the last that is stored is 2"),
        ([], 0, "batch 0 was acknowledged"),
        (WHOLE[:2], 1, "batch 1 ends after part 0"),
        ([WHOLE[0], WHOLE[2], WHOLE[3]], 2, "batch 0, part 0 is followed by batch 1, part 1"),
        ([*WHOLE, WHOLE[-1]], 2, "batch 2, part 0 is followed by batch 2, part 0"),
        ([WHOLE[0], WHOLE[3]], 2, "batch 0, part 0 is followed by batch 2"),
    ],
)
def test_each_fault_is_seen(found, reported, words):
    assert words in str(kills.verdict(found, reported))


def test_a_few_kills_resumed(tmp_path, capsys):
    state = tmp_path / "state.json"
    for count in (2, 4):
        assert kills.main(["--backend", "file", "--count", str(count), "--state", str(state)]) == 0
        assert json.loads(state.read_text()) == {"backend": "file", "kills": count}
        assert f"{count} kills" in capsys.readouterr().out
