"""The cost of each operation: commands, and the plan of each query."""

import bson
import pymongo
import pytest
from chathistory_mongodb import MongoStore
from mongodb_samples import KEY, body, fill_store, read_all, revision
from pymongo.monitoring import CommandListener

from chathistory import Key

DATA = {"find", "getMore", "killCursors", "insert", "update", "delete", "findAndModify", "aggregate", "count"}


class Listener(CommandListener):
    def __init__(self):
        self.commands = []

    def started(self, event):
        self.commands.append((event.command_name, event.command))

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass

    def take_commands(self):
        """Return the commands since the last call."""
        commands, self.commands = self.commands, []
        return [(name, command) for name, command in commands if name not in {"ping", "endSessions"}]

    def names(self):
        return [name for name, _ in self.take_commands()]


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def watched(member, database, listener):
    with pymongo.MongoClient(member.address, event_listeners=[listener]) as client:
        yield MongoStore(client, database=database.name)


def test_an_append_is_one_command(watched, listener):
    head = fill_store(watched, 2, size=100)
    listener.take_commands()
    for _ in range(50):
        head = fill_store(watched, 1, size=500, head=head)
        assert listener.names() == ["update"]
    watched.append(Key("default", "new"), ["a"], after=None, revision=revision())
    assert listener.names() == ["insert"]


@pytest.mark.parametrize("count", [2, 1000])
def test_an_append_sends_little_more_than_it_stores(watched, listener, database, count):
    head = fill_store(watched, count, size=100)
    listener.take_commands()
    fill_store(watched, 1, size=500, head=head)
    sent = [len(bson.encode(command)) for name, command in listener.take_commands() if name == "update"]
    assert sent[0] <= 500 + len(revision().payload) + 2 * len(KEY.scope + KEY.id) + len(database.name) + 700


def test_a_full_tail_costs_three_commands_more_at_times_four_and_seldom(watched, listener):
    head = fill_store(watched, 1, size=500)
    listener.take_commands()
    counts = []
    for _ in range(1000):
        head = fill_store(watched, 1, size=500, head=head)
        counts.append(len(listener.take_commands()))
    assert set(counts) == {1, 4, 5}
    assert sum(counts) / len(counts) < 1.1


@pytest.mark.parametrize("count", [30, 700])
def test_a_tail_is_one_command(watched, listener, count):
    fill_store(watched, count, size=500)
    listener.take_commands()
    found = watched.read(KEY, start=-20)
    assert [record.body for record in found.records] == [body(at, 500) for at in range(count - 20, count)]
    ((name, command),) = listener.take_commands()
    assert name == "find"
    assert "skip" not in command


def test_a_head_alone_does_not_bring_the_tail_along(watched, listener):
    fill_store(watched, 3)
    listener.take_commands()
    assert watched.read(KEY, stop=0).records == []
    ((_, command),) = listener.take_commands()
    assert "tail" not in command["projection"]


def test_records_further_up_are_two_commands(watched, listener):
    fill_store(watched, 60)
    listener.take_commands()
    assert [record.position for record in watched.read(KEY, start=12, stop=14).records] == [12, 13]
    assert listener.names() == ["find", "find"]


def test_a_long_range_is_one_command_for_thirty_two_segments(watched, listener, database):
    fill_store(watched, 450)
    segments = database.chathistory_segments.count_documents({})
    assert segments > 64
    listener.take_commands()
    assert len(watched.read(KEY).records) == 450
    assert len(listener.names()) == 1 + -(-segments // 32)


def test_a_body_in_pieces_is_two_commands_after_the_head(watched, listener):
    watched.append(KEY, ["x" * 12_000_000, "y"], after=None, revision=revision())
    listener.take_commands()
    assert len(watched.read(KEY, stop=1).records) == 1
    assert listener.names() == ["find", "find", "find"]


def test_a_page_and_its_next_are_one_command_each(watched, listener):
    for number in range(45):
        watched.append(Key("default", f"c{number}"), ["a"], after=None, revision=revision())
    listener.take_commands()
    page = watched.heads("default")
    assert listener.names() == ["find"]
    watched.heads("default", after=page.next, limit=200)
    assert listener.names() == ["find"]


def _stages(plan):
    if isinstance(plan, dict):
        yield from ([plan["stage"]] if "stage" in plan else [])
        for value in plan.values():
            yield from _stages(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _stages(value)


def _explained(database, command):
    fields = ("find", "filter", "projection", "sort", "limit", "hint")
    explainable = {name: command[name] for name in fields if name in command}
    return database.command({"explain": explainable, "verbosity": "executionStats"})


def _many(store, count):
    for number in range(count):
        store.append(Key(f"s{number % 3}", f"c{number}"), ["a"], after=None, revision=revision())


ASKS = {
    "a page": lambda store: store.heads("s1"),
    "the next page": lambda store: store.heads("s1", after=store.heads("s1").next),
    "keys of a scope": lambda store: list(store.keys("s1")),
    "all keys": lambda store: list(store.keys()),
    "a tail": lambda store: store.read(Key("s1", "c1"), start=-20),
    "from a position on": lambda store: store.read(Key("s1", "c1"), start=5),
}


@pytest.mark.parametrize("name", ASKS)
def test_no_query_scans_or_sorts(watched, listener, database, name, monkeypatch):
    monkeypatch.setattr("chathistory_mongodb.listing._NAMES_AT_ONCE", 40)
    _many(watched, 150)
    listener.take_commands()
    ASKS[name](watched)
    for _, command in listener.take_commands():
        explained = _explained(database, command)
        stages = set(_stages(explained["queryPlanner"]["winningPlan"]))
        assert stages & {"IXSCAN", "IDHACK"}
        assert not stages & {"COLLSCAN", "SORT"}
        assert explained["executionStats"]["totalKeysExamined"] <= 52
        looks_for_dead = "dead" in command["filter"]  # usually there are no such documents
        assert "FETCH" not in stages or "keys" not in name or looks_for_dead, "names come from the index alone"


def test_segments_are_found_by_their_index(watched, listener, database):
    fill_store(watched, 60)
    listener.take_commands()
    watched.read(KEY, start=12, stop=14)
    explained = _explained(database, listener.take_commands()[-1][1])
    stages = set(_stages(explained["queryPlanner"]["winningPlan"]))
    assert "IXSCAN" in stages
    assert not stages & {"COLLSCAN", "SORT"}
    assert explained["executionStats"]["totalDocsExamined"] <= 2


def test_writes_find_the_head_by_its_name(watched, listener, database):
    head = fill_store(watched, 3, size=100)
    listener.take_commands()
    fill_store(watched, 1, size=100, head=head)
    ((_, command),) = listener.take_commands()
    explained = database.command({"explain": {"update": command["update"], "updates": command["updates"]}})
    assert not set(_stages(explained["queryPlanner"]["winningPlan"])) & {"COLLSCAN"}


def test_indexes_are_looked_at_once(watched, listener):
    fill_store(watched, 5, size=100)
    names = listener.names()
    assert names.count("listIndexes") == names.count("createIndexes") == 2
    fill_store(watched, 5, size=100, key=Key("a", "b"))
    assert set(listener.names()) == {"insert", "update"}
    assert read_all(watched)
