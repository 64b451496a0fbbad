"""The content of the documents: for other programs, on disk, and after damage."""

import threading
from contextlib import closing

import pymongo
import pytest
from bson import ObjectId
from chathistory_mongodb import MongoStore
from mongodb_samples import BIG, KEY, body, fill_store, read_all, revision, stored_text

from chathistory import Key, open_store
from chathistory.errors import Conflict, CorruptRecord, InvalidInput, UnsupportedRecord

DOCUMENT = 16 * 1024 * 1024


def test_the_fields_are_next_to_the_bodies(store, database):
    store.append(KEY, ['{"a.b": 1, "$c": 2}'], after=None, revision=revision(5, expires=2**53 - 1, payload="{}"))
    (document,) = database.chathistory_conversations.find()
    fields = ("scope", "id", "start", "end", "updated", "expires", "info", "tail")
    due = ("default", "support/42", 0, 1, 5, 2**53 - 1, "{}", ['{"a.b": 1, "$c": 2}'])
    assert tuple(document[name] for name in fields) == due


def test_a_full_tail_goes_to_segments_and_the_newest_stay(store, database):
    head = fill_store(store, 100)
    (document,) = database.chathistory_conversations.find()
    assert sum(len(text.encode()) for text in document["tail"]) < 80_000
    assert len(document["tail"]) >= 2
    assert len(document["runs"]) <= 9
    covered = sorted((segment["first"], segment["end"]) for segment in database.chathistory_segments.find())
    assert [first for first, _ in covered] == [0, *(end for _, end in covered[:-1])]
    assert covered[-1][1] == document["from"]
    assert read_all(store) == (head, [body(at) for at in range(100)])


@pytest.mark.parametrize("make", ["alone", "in a batch", "first"])
def test_a_body_of_thirty_megabytes(store, database, make):
    large = "QUJD" * 7_500_000 + "é👋"
    batch = {"alone": [large], "in a batch": ["before", large, "behind"], "first": [large, large]}[make]
    head = None if make == "first" else fill_store(store, 3)
    earlier = [] if head is None else [body(at) for at in range(3)]
    head = store.append(KEY, batch, after=head, revision=revision())
    head = fill_store(store, 2, head=head)
    assert read_all(store) == (head, [*earlier, *batch, body(head.end - 2), body(head.end - 1)])
    assert max(len(document["bodies"][0]) for document in database.chathistory_segments.find()) < DOCUMENT // 2
    store.forget(KEY, before=head.end - 2)
    assert database.chathistory_segments.count_documents({}) == 0
    assert read_all(store)[1] == [body(head.end - 2), body(head.end - 1)]


def test_a_batch_of_many_lines(store):
    lines = [f'{{"n": {number}}}' for number in range(50_000)]
    head = store.append(KEY, lines, after=fill_store(store, 1), revision=revision())
    assert read_all(store) == (head, [body(0), *lines])


def test_slices_bound_memory(store):
    store.append(KEY, [body(at, 1_000_000) for at in range(24)], after=None, revision=revision())
    found = store.read(KEY)
    assert 4 <= len(found.records) < 20
    assert read_all(store)[1] == [body(at, 1_000_000) for at in range(24)]


@pytest.mark.parametrize("before", [1, 5, 17, 25, 29, 30, 99])
def test_what_is_forgotten_is_nowhere(store, database, before):
    fill_store(store, 30)
    store.forget(KEY, before=before)
    text = stored_text(database)
    for at in range(30):
        assert (body(at).encode() in text) is (at >= before), at
    document = database.chathistory_conversations.find_one()
    assert document["bytes"] == sum(len(kept.encode()) + 16 for kept in document["tail"])


def test_a_deleted_conversation_leaves_nothing(store, database):
    fill_store(store, 30)
    assert store.delete(KEY)
    assert stored_text(database) == b""


def test_leftovers_of_one_conversation_never_get_into_the_next(store, database):
    fill_store(store, 9)
    old = list(database.chathistory_segments.find())
    store.delete(KEY)
    database.chathistory_segments.insert_many(old)
    head = fill_store(store, 9, size=BIG - 1000)
    assert read_all(store) == (head, [body(at, BIG - 1000) for at in range(9)])


def test_what_an_attempt_wrote_in_vain_is_never_read(store, database):
    fill_store(store, 9)
    (segment,) = database.chathistory_segments.find()
    strange = {**segment, "_id": ObjectId(), "by": ObjectId(), "bodies": ["strange"] * len(segment["bodies"])}
    database.chathistory_segments.delete_one({"_id": segment["_id"]})
    database.chathistory_segments.insert_many([strange, segment])  # it comes first if the order is undefined
    assert read_all(store)[1] == [body(at) for at in range(9)]
    fill_store(store, 50, head=store.read(KEY, stop=0).head)  # until the segments of all attempts are marked
    assert read_all(store)[1] == [body(at) for at in range(59)]


def test_two_who_find_a_full_tail_both_go_on(store, url):
    head = fill_store(store, 7)
    with open_store(url) as other:
        barrier, outcomes = threading.Barrier(2), []

        def write(each):
            barrier.wait()
            try:
                outcomes.append(each.append(KEY, [body(7)], after=head, revision=revision()))
            except Conflict as conflict:
                outcomes.append(conflict.head)

        threads = [threading.Thread(target=write, args=(each,)) for each in (store, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes[0] == outcomes[1]
    assert read_all(store) == (outcomes[0], [body(at) for at in range(8)])


def test_readers_never_meet_a_gap_while_others_spill_and_forget(store, url):
    fill_store(store, 20, size=5000)
    done, seen, wrong = threading.Event(), [], []

    def look():
        with open_store(url) as other:
            while not done.is_set():
                found = other.read(KEY, start=0)
                texts = [record.body for record in found.records]
                due = [body(record.position, 5000) for record in found.records]
                whole = bool(found.records) and found.records[0].position == found.head.start
                (seen if texts == due and whole else wrong).append(found.head.start)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    head = store.read(KEY, stop=0).head
    rounds = 0
    while not wrong and (rounds < 60 or len(set(seen)) <= 5):
        head = fill_store(store, 1, size=5000, head=head)
        head = store.forget(KEY, before=head.end - 15)
        rounds += 1
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_expired_conversation_is_swept_whole_and_others_stay(store, database):
    for number, expires in enumerate((10, 20, 30, None)):
        head = store.append(Key("s", f"c{number}"), [body(0)], after=None, revision=revision(expires=expires))
        for _ in range(9):
            head = store.append(head.key, [body(head.end)], after=head, revision=revision(expires=expires))
    assert store.sweep(before=25).expired == 2
    assert [key.id for key in sorted(store.keys())] == ["c2", "c3"]
    alive = {document["born"] for document in database.chathistory_conversations.find()}
    assert {segment["of"] for segment in database.chathistory_segments.find()} == alive
    assert store.sweep(before=25).expired == 0
    assert store.sweep().expired == 1, "without an argument, what has expired by now"
    assert [key.id for key in store.keys("s")] == ["c3"]


def test_the_sweep_removes_leftovers_of_a_crash(store, database):
    fill_store(store, 9)
    document = database.chathistory_conversations.find_one()
    dead = {"_id": document["_id"], "born": document["born"], "dead": 2, "expires": 0}
    database.chathistory_conversations.replace_one({}, dead)
    assert list(store.keys()) == []
    assert store.heads(KEY.scope).items == []
    assert store.sweep(before=1).expired == 0
    assert stored_text(database) == b""


DAMAGES = {
    "a segment is gone": (lambda db: db.chathistory_segments.delete_one({"first": 0}), 0),
    "a later segment is gone": (lambda db: db.chathistory_segments.delete_one({"first": 6}), 6),
    "a segment is short": (lambda db: db.chathistory_segments.update_one({"first": 0}, {"$pop": {"bodies": 1}}), 0),
    "a body is a number": (lambda db: db.chathistory_segments.update_one({"first": 0}, {"$set": {"bodies.1": 7}}), 1),
    "the tail is short": (lambda db: db.chathistory_conversations.update_one({}, {"$pop": {"tail": -1}}), None),
    "the tail holds a number": (lambda db: db.chathistory_conversations.update_one({}, {"$set": {"tail.0": 7}}), 12),
    "the end is a text": (lambda db: db.chathistory_conversations.update_one({}, {"$set": {"end": "9"}}), None),
    "the version is gone": (lambda db: db.chathistory_conversations.update_one({}, {"$unset": {"version": 1}}), None),
    "another id": (lambda db: db.chathistory_conversations.update_one({}, {"$set": {"id": "x"}}), None),
    "the start is behind": (lambda db: db.chathistory_conversations.update_one({}, {"$set": {"start": 99}}), None),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_reported_with_its_position(store, database, name):
    fill_store(store, 15)
    assert [segment["first"] for segment in database.chathistory_segments.find().sort("first")] == [0, 6]
    damage, position = DAMAGES[name]
    damage(database)
    with pytest.raises(CorruptRecord) as caught:
        read_all(store)
    assert (caught.value.key, caught.value.position) == (KEY, position)


def test_a_damaged_head_is_named_by_the_listing(store, database):
    fill_store(store, 1)
    fill_store(store, 1, key=Key("default", "sound"))
    database.chathistory_conversations.update_one({"id": KEY.id}, {"$set": {"end": "9"}})
    page = store.heads("default")
    assert [head.key.id for head in page.items] == ["sound"]
    assert [(each.key, each.error.key, each.error.position) for each in page.damaged] == [(KEY, KEY, None)]


def test_a_head_of_a_later_format_is_unsupported(store, database):
    fill_store(store, 1)
    database.chathistory_conversations.update_one({}, {"$set": {"format": 2}})
    with pytest.raises(UnsupportedRecord) as caught:
        store.read(KEY)
    assert caught.value.version == 2
    assert isinstance(store.heads("default").damaged[0].error, UnsupportedRecord)


def test_foreign_documents_and_collections_are_left_alone(database, client, url):
    foreign = {"_id": 7, "scope": 1, "x": "conversations"}
    for name in ("conversations", "segments", "chathistory", "other_conversations", "chathistory_conversations"):
        database[name].insert_one(dict(foreign))
    with open_store(url) as store, open_store(url, prefix="other_") as other, open_store(url, prefix="") as bare:
        for each in (store, other, bare):
            fill_store(each, 9)
        other.delete(KEY)
        assert list(other.keys()) == []
        assert list(store.keys()) == list(bare.keys()) == [KEY]
        assert len(store.heads("default").items) == 1
        store.sweep(before=2**60)
    for name in ("conversations", "segments", "chathistory", "other_conversations", "chathistory_conversations"):
        assert database[name].find_one({"_id": 7}) == foreign


def test_a_client_that_is_handed_in_is_used_and_never_closed(client, database):
    with MongoStore(client, database=database.name, prefix="mine.") as store:
        fill_store(store, 1)
    assert client.admin.command("ping")["ok"] == 1
    assert database["mine.conversations"].count_documents({}) == 1


def test_the_write_concern_is_the_safe_one_unless_the_client_has_its_own(member, client, database):
    place = MongoStore(client)._server.open_collections()
    assert place.heads.write_concern.document == {"w": "majority", "j": True, "wtimeout": 5000}
    with closing(pymongo.MongoClient(member.address, w=1)) as own:
        assert MongoStore(own)._server.open_collections().segments.write_concern.document == {"w": 1}


@pytest.mark.parametrize("words", [{"updated": 2**63}, {"expires": 2**63}])
def test_a_time_that_does_not_fit_is_refused(store, words):
    with pytest.raises(InvalidInput):
        store.append(KEY, ["a"], after=None, revision=revision(**words))


def test_the_queries_of_the_docs_find_what_they_say(store, database):
    for name, count in (("small", 1), ("large", 20)):
        fill_store(store, count, key=Key("alice", name))
    store.append(Key("bob", "refunds"), ["no", "a Refund?"], after=None, revision=revision())
    heads, segments = database.chathistory_conversations, database.chathistory_segments
    week = heads.find({"scope": "alice", "updated": {"$gt": 0}}, {"tail": 0}).sort({"updated": -1})
    assert [document["id"] for document in week] == ["large", "small"]
    records = {"scope": 1, "id": 1, "records": {"$subtract": ["$end", "$start"]}}
    largest = [{"$match": {"dead": {"$exists": False}}}, {"$project": records}, {"$sort": {"records": -1}}]
    assert [document["records"] for document in heads.aggregate(largest)] == [20, 2, 1]
    assert [document["id"] for document in heads.find({"tail": {"$regex": "refund", "$options": "i"}})] == ["refunds"]
    look = {"from": heads.name, "localField": "of", "foreignField": "born", "as": "head"}
    older = [{"$match": {"bodies": {"$regex": "<3>"}}}, {"$lookup": look}]
    assert [document["head"][0]["id"] for document in segments.aggregate(older)] == ["large"]
    gone = [{"$group": {"_id": "$of"}}, {"$lookup": {**look, "localField": "_id"}}, {"$match": {"head": []}}]
    assert list(segments.aggregate(gone)) == []
    heads.delete_one({"id": "large"})
    assert len(list(segments.aggregate(gone))) == 1
