"""Each kind of failure has its own typed error, and no error quotes a text or a password."""

import signal
import time
import traceback
from pathlib import Path

import pymongo
import pytest
from chathistory_mongodb import MongoStore
from mongodb_samples import KEY, fill_store, read_all, retry_until_available, revision
from mongodb_servers import replica_set, standalone
from pymongo.monitoring import CommandListener

from chathistory import open_store
from chathistory.errors import StoreClosed, StoreRejected, StoreUnavailable

SECRET = "s3cr3t-marker"
PASSWORD = "p@ss/word"


def _chain(error, seen):
    if error is not None and error not in seen:
        seen.append(error)
        _chain(error.__cause__, seen)
        _chain(error.__context__, seen)
    return seen


def _quiet(error):
    seen = _chain(error, [])
    assert error.__cause__ is not None, "the client's error is the cause"
    shown = "".join(f"{each!r} {each} {each.args} {getattr(each, 'details', '')}" for each in seen)
    assert SECRET not in shown + "".join(traceback.format_exception(error))


def _write(store, head):
    return store.append(KEY, [f"{SECRET} again"], after=head, revision=revision(payload=SECRET))


UNAVAILABLE = (10107, 11600, 11602, 189, 91, 11601, 262, 112)
REJECTED = (13, 18, 8000, 10334, 14031, 121, 2)


@pytest.mark.parametrize(
    ("doing", "code"),
    [
        *(("append", code) for code in (*UNAVAILABLE, *REJECTED)),
        *((doing, code) for doing in ("read", "heads", "forget", "delete") for code in (UNAVAILABLE[0], REJECTED[0])),
        *(
            pytest.param(doing, code, marks=pytest.mark.wide)
            for doing in ("read", "heads", "forget", "delete")
            for code in (*UNAVAILABLE[1:], *REJECTED[1:])
        ),
    ],
)
def test_an_error_of_the_server_is_typed(url, fail, code, doing):
    calls = {
        "append": ("update", lambda: _write(store, head)),
        "read": ("find", lambda: store.read(KEY)),
        "heads": ("find", lambda: store.heads("default")),
        "forget": ("findAndModify", lambda: store.forget(KEY, before=1)),
        "delete": ("findAndModify", lambda: store.delete(KEY)),
    }
    command, call = calls[doing]
    with open_store(url, retryWrites=False, retryReads=False, heartbeatFrequencyMS=500) as store:
        head = fill_store(store, 2, size=100)
        fail(command, errorCode=code)
        with pytest.raises(StoreUnavailable if code in UNAVAILABLE else StoreRejected) as caught:
            call()
        fail.off()
        _quiet(caught.value)
        assert read_all(store)[0] == head


def test_a_write_that_too_few_acknowledged_may_be_there(store, fail):
    head = fill_store(store, 1)
    fail("update", writeConcernError={"code": 64, "errmsg": SECRET})
    with pytest.raises(StoreUnavailable) as caught:
        _write(store, head)
    assert caught.value.outcome == "unknown"
    _quiet(caught.value)
    assert read_all(store)[0].end == 2


def test_a_write_concern_that_the_deployment_cannot_keep(url):
    with open_store(url, w=5) as store, pytest.raises(StoreUnavailable) as caught:
        fill_store(store, 1)
    assert "write concern" in str(caught.value)


def test_a_validator_is_not_quoted(store, database):
    head = fill_store(store, 1)
    rule = {"$jsonSchema": {"properties": {"info": {"maxLength": 0}, "tail": {"maxItems": 1}}}}
    database.command("collMod", "chathistory_conversations", validator=rule)
    with pytest.raises(StoreRejected) as caught:
        _write(store, head)
    _quiet(caught.value)


def test_a_unique_index_of_somebody_else_is_not_a_conflict_and_not_quoted(store, database):
    database.chathistory_conversations.create_index("info", unique=True)
    store.append(KEY, ["a"], after=None, revision=revision(payload=SECRET))
    other = type(KEY)("default", "other")
    with pytest.raises(StoreRejected) as caught:
        store.append(other, ["a"], after=None, revision=revision(payload=SECRET))
    _quiet(caught.value)
    head = store.append(other, ["a"], after=None, revision=revision(payload="x"))
    with pytest.raises(StoreRejected) as caught:
        store.append(other, ["a"], after=head, revision=revision(payload=SECRET))
    _quiet(caught.value)


def test_a_head_that_no_document_can_hold_is_refused_and_leaves_nothing(store, database, monkeypatch):
    monkeypatch.setattr("chathistory.storage.checks.LONGEST_PAYLOAD", 2**30)
    head = fill_store(store, 7)
    for size in (16_777_000, 17_000_000):
        for bodies in (["a"], ["a" * 3_000_000]):
            with pytest.raises(StoreRejected) as caught:
                store.append(KEY, bodies, after=head, revision=revision(payload=SECRET + "x" * size))
            _quiet(caught.value)
    assert read_all(store)[0] == head
    assert database.chathistory_segments.count_documents({}) == 0


def test_a_closed_client_is_a_closed_store(member, database):
    client = pymongo.MongoClient(member.address)
    store = MongoStore(client, database=database.name)
    client.close()
    with pytest.raises(StoreClosed):
        store.read(KEY)


def test_a_hung_server_is_reported(store, url, fail, client):
    """The server answers long after the time-out, so that must end the call, on a busy machine as well."""
    head = fill_store(store, 1)
    with open_store(url, socketTimeoutMS=300, retryWrites=False) as hasty:
        retry_until_available(hasty._server.prepare_collections)
        fail("update", blockConnection=True, blockTimeMS=60_000)
        with pytest.raises(StoreUnavailable) as caught:
            _write(hasty, head)
        assert caught.value.outcome == "unknown"
    for operation in client.admin.aggregate([{"$currentOp": {}}, {"$match": {"command.update": {"$exists": True}}}]):
        client.admin.command("killOp", op=operation["opid"])


def _stopped(server):
    server.process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


class _Sent(CommandListener):
    """Counts the commands that are sent, by their names."""

    def __init__(self):
        self.names = []

    def started(self, event):
        self.names.append(event.command_name)

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.mark.parametrize("options", [{"socketTimeoutMS": 200}, {"timeoutMS": 300}], ids=str)
def test_a_server_that_is_stopped_is_noticed(options):
    """The server has stopped answering, so each call ends by a time-out; the driver sends a command twice at most."""
    sent = _Sent()
    with (
        replica_set() as (server,),
        pymongo.MongoClient(
            server.address, serverSelectionTimeoutMS=200, connectTimeoutMS=200, event_listeners=[sent], **options
        ) as client,
        open_store(f"mongodb://{server.address}/app") as patient,
    ):
        store = MongoStore(client, database="app")
        head = fill_store(patient, 2, size=100)
        retry_until_available(lambda: store.read(KEY))
        retry_until_available(store._server.prepare_collections)
        _stopped(server)
        calls = {
            "update": lambda: _write(store, head),
            "find": lambda: store.read(KEY),
            "findAndModify": lambda: store.delete(KEY, version="x"),
        }
        for command, call in calls.items():
            sent.names.clear()
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert sent.names in ([], [command], [command] * 2)
            _quiet(caught.value)
        server.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def guarded():
    """A server that asks for passwords, with a user who may read and write, and some who may do less."""
    with standalone("--auth") as server:
        with pymongo.MongoClient(server.address) as client:
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with pymongo.MongoClient(server.address, username="root", password=PASSWORD) as client:
            database = client["app"]
            data = {"resource": {"db": "app", "collection": ""}}
            crud = ["find", "insert", "update", "remove"]
            database.command("createRole", "plain", privileges=[{**data, "actions": crud}], roles=[])
            lists = [{**data, "actions": [*crud, "listIndexes"]}]
            database.command("createRole", "lists", privileges=lists, roles=[])
            for name, role in (("writer", "readWrite"), ("reader", "read"), ("plain", "plain"), ("lists", "lists")):
                database.command("createUser", name, pwd=PASSWORD, roles=[role])
            yield server


def _as(server, user, password="p%40ss%2Fword"):
    return open_store(f"mongodb://{user}:{password}@{server.address}/app", serverSelectionTimeoutMS=60_000)


def test_a_wrong_password_is_a_refusal_that_does_not_show_it(guarded):
    with _as(guarded, "writer", "s3cr3t-marker") as store:
        with pytest.raises(StoreRejected) as caught:
            store.check()
        _quiet(caught.value)
        assert SECRET not in repr(store) + repr(vars(store))


def test_a_user_who_may_not_create_indexes_gets_an_error_and_may_write_once_they_exist(guarded):
    for user in ("plain", "lists"):
        with _as(guarded, user) as store, pytest.raises(StoreRejected, match="indexes") as caught:
            fill_store(store, 1)
        _quiet(caught.value)
    with _as(guarded, "writer") as store:
        head = fill_store(store, 9)
    with _as(guarded, "lists") as store:
        head = fill_store(store, 9, head=head)
        assert read_all(store)[0] == head
    with _as(guarded, "reader") as store:
        assert read_all(store)[0] == head
        for call in (
            lambda: fill_store(store, 1, head=head),
            lambda: store.delete(KEY),
            lambda: store.forget(KEY, before=3),
        ):
            with pytest.raises(StoreRejected) as caught:
                call()
            _quiet(caught.value)
        assert read_all(store)[0] == head


def test_an_index_with_a_name_of_the_store_and_other_keys_is_reported(url, database):
    database.chathistory_conversations.create_index({"x": 1}, name="by_activity")
    with open_store(url) as store, pytest.raises(StoreRejected, match="by_activity"):
        fill_store(store, 1)


def test_a_collection_that_folds_case_is_refused(url, database):
    database.create_collection("chathistory_conversations", collation={"locale": "en", "strength": 1})
    with open_store(url) as store, pytest.raises(StoreRejected, match="collation"):
        fill_store(store, 1)


def test_a_listing_without_its_index_is_refused_rather_than_slow(store, database):
    fill_store(store, 1)
    database.chathistory_conversations.drop_index("by_activity")
    with pytest.raises(StoreRejected):
        store.heads("default")
