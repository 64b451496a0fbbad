"""Damage of every kind, and everything that walks over a whole store: on every backend, and after a transfer."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from datetime import timedelta

import mongodb_samples
import pytest
import s3_samples
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from file_samples import flip, line_of, path_of
from sample_conversations import said, user, whole

from chathistory import Entry, History, Key, Revision, ViewRepair, open_store
from chathistory.errors import ChatHistoryError
from chathistory.log.entry import encode

pytestmark = pytest.mark.wide

SCOPE = "ada"
COUNT = 12


@dataclass(frozen=True)
class Hurt:
    """A damaged conversation.

    lost: how many of its records cannot be read. restorable: its head can be restored. beyond: nothing can be done.
    """

    key: Key
    lost: int = 0
    restorable: bool = False
    beyond: bool = False


def fill_store(store, batch):
    history = History(store)
    for number in range(COUNT):
        chat = history.conversation(f"c{number}", scope=SCOPE)
        messages = [(said if n % 2 else user)(f"{number}-{n}") for n in range(6 if batch < 300 else 300)]
        for start in range(0, len(messages), batch):
            chat.append(messages[start : start + batch])
    history.conversation("other", scope="eve").append(user("of somebody else"))
    return history


def foreign(store, key, way):
    """Write through the contract what no version of this library would: it is damage on every backend."""
    head = store.read(key, start=0, stop=0).head
    line = encode(make_entry("annotation"))
    info = {"nonsense": "nonsense", "later": '{"v":9}'}.get(way, head.revision.payload)
    body = f"{line[:-1]}" if way == "record" else line
    store.append(
        key, [body], after=head, revision=Revision(f"by-{way}", head.revision.updated, head.revision.expires, info)
    )


def hurt_through_the_contract(store, keys):
    kinds = ("nonsense", "later", "record")
    for key, way in zip(keys, kinds, strict=False):
        foreign(store, key, way)
    return [
        Hurt(keys[0], restorable=True),
        Hurt(keys[1], beyond=True),
        Hurt(keys[2], lost=1),
    ]


def flip_file(store, key, position):
    """Change a byte of a record's line, or (None) of the last line, which says what the head does."""
    path = path_of(store, key)
    place = path.read_bytes().rindex(b'"end":') + 6 if position is None else line_of(path, position).stop - 4
    flip(path, place)


def flip_redis(store, key, position):
    import redis  # only where there is a server

    with redis.Redis.from_url(store_url(store)) as raw:
        name = store._layout.names(key).conversation
        index = -1
        if position is not None:
            start = int(raw.lindex(name, -1).split(b"\n")[1])
            index = position - start
        element = raw.lindex(name, index)
        raw.lset(name, index, bytes([element[0] ^ (0x80 if position is not None else 0x40)]) + element[1:])


def store_url(store):
    return URLS[id(store)]


URLS: dict[int, str] = {}


def flip_s3(store, key, position):
    client, bucket = store._bucket._client, store._bucket.name
    if position is None:
        s3_samples.damage_head(client, bucket, store, key)
    else:
        s3_samples.damage_record(client, bucket, store, key, position)


def flip_mongodb(store, key, position):
    import pymongo  # only where there is a server

    with pymongo.MongoClient(store_url(store).rpartition("/")[0]) as client:
        database = client[store_url(store).rpartition("/")[2]]
        if position is None:
            one = {"_id": {"s": key.scope, "i": key.id}}
            assert database.chathistory_conversations.update_one(one, {"$unset": {"version": ""}}).modified_count == 1
        else:
            mongodb_samples.damage_record(database, key, position)


RAW = {"file": flip_file, "redis": flip_redis, "s3": flip_s3, "mongodb": flip_mongodb}


BACKENDS = ("memory", "file", "redis", "mongodb", "s3")
SLOW = ("mongodb", "s3")


@pytest.fixture
def backend(case):
    return case[0]


@pytest.fixture
def batch(case):
    return case[1]


@pytest.fixture
def make(backend, url_of):
    """Return a function that opens the store, and once more as another process would."""
    url = url_of(backend)
    if backend == "memory":
        url = f"memory:damage-{random.randrange(10**9)}"
    opened = []

    def make():
        store = open_store(url)
        URLS[id(store)] = url.partition("?")[0]
        opened.append(store)
        return store

    yield make
    for store in opened:
        URLS.pop(id(store), None)
        store.close()
    MemoryStore._named.pop(url.partition(":")[2], None)


@pytest.fixture(
    params=[
        pytest.param((backend, batch), marks=pytest.mark.stress if batch == 1 and backend in SLOW else [])
        for backend in BACKENDS
        for batch in (1, 3, 300)
    ],
    ids=lambda case: f"{case[0]}-{case[1]}",
)
def case(request):
    """A backend, and how many messages each append has; the contract damages records that were appended alone."""
    return request.param


@pytest.fixture
def hurt(make, backend, batch):
    """A store with damage in it, and what of it is damaged."""
    store = make()
    fill_store(store, batch)
    keys = [Key(SCOPE, f"c{number}") for number in range(COUNT)]
    damaged = hurt_through_the_contract(store, keys[:3])
    if backend in RAW:
        flip = RAW[backend]
        for key, positions in ((keys[3], [0]), (keys[4], [2]), (keys[5], [5]), (keys[6], [0, 1, 2, 4])):
            for position in positions:
                flip(store, key, position)
            damaged.append(Hurt(key, lost=len(positions)))
        flip(store, keys[7], None)
        damaged.append(Hurt(keys[7], restorable=True))
    return make, {each.key: each for each in damaged}


def exported(store, **options):
    out = io.BytesIO()
    return History(store).export_to(out, **options), out.getvalue()


def rows_of(store):
    rows, damaged, after = [], [], None
    while True:
        page = History(store).list(scope=SCOPE, limit=4, after=after)
        rows += page.items
        damaged += page.damaged
        after = page.next
        if after is None:
            return rows, damaged


def sound_of(store, damaged):
    """Return everything undamaged in the store."""
    return {key: History(store).conversation(key.id, scope=key.scope).messages() for key in KEYS if key not in damaged}


KEYS = [Key(SCOPE, f"c{number}") for number in range(COUNT)]


def test_one_damaged_thing_stays_one(hurt):
    make, damaged = hurt
    store = make()
    history = History(store)
    heads = {key for key, each in damaged.items() if each.restorable or each.beyond}
    # The listing, and what filters it.
    rows, reported = rows_of(store)
    assert {row.id for row in rows} == {key.id for key in KEYS if key not in heads}
    assert {each.key for each in reported} == heads
    assert all(isinstance(each.error, ChatHistoryError) for each in reported)
    assert {each.key for each in history.list(scope=SCOPE, limit=50, title="0-0").damaged} == heads
    # Keys, retention, the check.
    assert set(store.keys(SCOPE)) >= set(KEYS) - heads
    assert set(store.scan_keys(SCOPE)) == set(KEYS)
    plan = history.prune(scope=SCOPE, count=0, ttl=timedelta(0), full_scan=True)
    assert {row.id for row in plan.removed} == {key.id for key in KEYS if key not in heads}
    assert {each.key for each in plan.damaged} == heads
    report = history.check(scope=SCOPE)
    states = {each.key: each.state for each in report.found if each.state != "sound"}
    assert states == {
        key: "restorable" if each.restorable else "unsupported" if each.beyond else "repairable"
        for key, each in damaged.items()
        if not (each.lost and key == KEYS[2])
    } | {KEYS[2]: "repairable"}
    # Out and in again.
    sound = sound_of(store, damaged)
    done, data = exported(store, scope=SCOPE)
    assert (set(done.failed), done.conversations) == (set(damaged), COUNT - len(damaged))
    old = b"".join(line for line in data.splitlines(keepends=True) if b'"kind":"aborted"' not in line)
    for file in (data, old):
        with MemoryStore() as target:
            again = History(target).import_from(io.BytesIO(file), all_scopes=True)
            assert (again.copied, again.skipped) == (COUNT - len(damaged), [])
            assert sound_of(target, damaged) == sound
            there = whole(target)
            assert {key: there[key] for key in sound} == {key: whole_of(store, key) for key in sound}
    with MemoryStore() as target:
        copied = history.copy_to(target, scope=SCOPE, threads=2)
        assert (set(copied.failed), copied.copied) == (set(damaged), COUNT - len(damaged))
    # What can be read of the damaged ones.
    done, data = exported(store, scope=SCOPE, salvage=True)
    assert set(done.failed) == {key for key, each in damaged.items() if each.beyond}
    assert done.salvaged == {key: each.lost for key, each in damaged.items() if each.lost}
    with MemoryStore() as target:
        assert History(target).import_from(io.BytesIO(data), all_scopes=True).complete
        assert exported(target)[0].complete
    # Erasing.
    assert history.erase(SCOPE).complete
    assert list(store.scan_keys(SCOPE)) == []
    assert len(history.conversation("other", scope="eve").messages()) == 1


def whole_of(store, key):
    part = store.read(key)
    records = list(part.records)
    while records[-1].position + 1 < part.head.end:
        records += store.read(key, start=records[-1].position + 1).records
    return part.head, tuple(records)


def check_that_each_is_damaged(make, damaged):
    """Check the samples: else the tests would show nothing."""
    assert len(damaged) >= 3
    for key in damaged:
        with pytest.raises(ChatHistoryError):
            list(History(make()).conversation(key.id, scope=key.scope).entries())
            History(make()).conversation(key.id, scope=key.scope).messages()


def test_damage_is_repaired_as_far_as_sound_records_are_left(hurt):
    make, damaged = hurt
    store = make()
    check_that_each_is_damaged(make, damaged)
    sound = sound_of(store, damaged)
    for key, each in damaged.items():
        chat = History(make()).conversation(key.id, scope=key.scope)
        left = [entry for entry in chat.salvage() if isinstance(entry, Entry)]
        lost = [entry for entry in chat.salvage() if isinstance(entry, ViewRepair)]
        assert len(lost) == each.lost
        if each.beyond:
            with pytest.raises(ChatHistoryError):
                chat.restore(dry_run=False)
            continue
        assert bool(chat.restore(dry_run=False)) is each.restorable
        chat.repair(dry_run=False)
        fresh = History(make()).conversation(key.id, scope=key.scope)
        assert fresh.repair() == ()
        there = [entry for entry in left if entry.kind == "message"]
        first = next((entry.position for entry in there if entry.message["role"] == "user"), 10**6)
        shown = {entry.data.get("copy_of", entry.position) for entry in fresh.last_entries(1000)}
        assert {position for position in shown if position >= first} == {
            entry.position for entry in there if entry.position >= first
        }, "a conversation begins with a user's message; all else is there"
        fresh.messages()
        fresh.append(user("on"))
        assert History(make()).conversation(key.id, scope=key.scope).messages()[-1] == user("on")
    assert sound_of(make(), damaged) == sound
    left = {each.key for each in History(make()).check(scope=SCOPE).found if each.state != "sound"}
    assert left == {key for key, each in damaged.items() if each.beyond}
