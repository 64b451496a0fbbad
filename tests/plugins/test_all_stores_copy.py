"""Copies from store to store, in a circle: exact to the character, whatever is killed on the way."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sample_conversations import SCOPES, fill_store, order, user, whole

from chathistory import History, Key, open_store

pytestmark = pytest.mark.wide

RING = ("memory", "file", "redis", "mongodb", "s3", "file")
COPIER = Path(__file__).with_name("copying_process.py")


def around(new, count):
    stores = [new(backend) for backend in RING]
    fill_store(stores[0], count)
    expected = whole(stores[0])
    for here, there in itertools.pairwise(stores):
        report = History(here).copy_to(there, all_scopes=True)
        assert (report.copied, report.complete) == (len(expected), True)
        assert report.records == sum(len(records) for _, records in expected.values())
    assert whole(stores[-1]) == expected
    for scope in (*SCOPES, "forks"):
        assert len({tuple(order(store, scope)) for store in stores if store.traits.recency == "exact"}) == 1
        assert sorted(order(stores[4], scope)) == sorted(order(stores[0], scope))
    again = History(stores[0]).copy_to(stores[-1], all_scopes=True)
    assert (again.copied, again.same, again.records) == (0, len(expected), 0)
    key = Key(SCOPES[0], "chat 0 \U0001f600")
    chats = [History(store).conversation(key.id, scope=key.scope) for store in (stores[0], stores[-1])]
    assert chats[0].messages() == chats[1].messages()
    assert chats[1].append(user("on")).start == expected[key][0].start == 2


def test_a_copy_all_around_is_the_same_to_the_character(new):
    around(new, 60)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_a_thousand_conversations_all_around(new):
    around(new, 1000)


def broken_off(url_of, backend, *, kills, small, large):
    """Copy from a file store, kill the copying process repeatedly, and check the target each time."""
    urls = url_of("file"), url_of(backend)
    rng = random.Random(backend)
    with open_store(urls[0]) as source, open_store(urls[1]) as target:
        fill_store(source, small)
        for number in range(large):
            History(source).conversation(f"large {number}").append([user("x" * 3000) for _ in range(40)])
        expected = whole(source)
        seen, halves = 0, 0
        for _ in range(kills):
            _kill_a_copy(urls, after=rng.randrange(2, 25))
            there = {key: stored for key, stored in whole(target).items() if stored[0].revision.expires != 1}
            halves += len(list(target.keys())) - len(there)
            assert {key: expected[key] for key in there} == there
            listed = {(row.scope, row.id) for scope in (*SCOPES, "forks") for row in _rows(target, scope)}
            assert listed == {(key.scope, key.id) for key in there}
            assert len(there) >= seen
            seen = len(there)
        assert halves > 0, "no kill came in the midst of a conversation"
        report = History(source).copy_to(target, all_scopes=True)
        assert report.complete
        assert report.same == seen
        assert report.copied == len(expected) - seen > 0
        assert whole(target) == expected


def _kill_a_copy(urls, *, after):
    """Let a process copy so many portions, and then to the middle of the next large conversation, and kill it.

    It is killed while it stores the next portion.
    """
    process = subprocess.Popen(
        [sys.executable, str(COPIER), *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stored = Counter()
    while name := process.stdout.readline().rstrip("\n"):
        stored[name] += 1
        process.stdin.write("go on\n")
        process.stdin.flush()
        if stored.total() >= after and name.startswith("large") and stored[name] == 10:
            break
    process.kill()
    process.communicate()


def _rows(store, scope):
    return History(store).list(scope=scope, limit=10_000).items


@pytest.mark.parametrize("backend", ["file", "redis"])
def test_a_copy_that_is_killed_leaves_whole_conversations_and_goes_on(url_of, backend):
    broken_off(url_of, backend, kills=4, small=60, large=8)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["file", "redis", "mongodb", "s3"])
def test_a_copy_that_is_killed_often(url_of, backend):
    broken_off(url_of, backend, kills=25, small=300, large=50)
