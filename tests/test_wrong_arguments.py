"""Wrong stores and clients are refused at once; errors after a fork or a pickle say what to do instead."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import pickle
from pathlib import Path

import boto3
import pymongo
import pytest
import redis
import redis.asyncio
import redis.sentinel
from chathistory_file import FileStore
from chathistory_memory import MemoryStore
from chathistory_mongodb import MongoStore
from chathistory_redis import RedisStore
from chathistory_s3 import S3Store

from chathistory import AsyncHistory, Conversation, History, HistoryStore, Key, checks, errors, open_store
from chathistory.testing.contract.forked_child import run_in_child

AWS = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "secret-b"}


class Proxy:
    """A tracing proxy, with all attributes of the inner object."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


class AsyncStore(MemoryStore):
    async def append(self, *_, **__):  # a backend that was written for asyncio
        raise NotImplementedError


class Incomplete:
    __slots__ = ("append", "close", "delete", "forget", "heads", "keys", "read", "traits")

    def __init__(self):
        store = MemoryStore()
        for name in self.__slots__:
            setattr(self, name, getattr(store, name))


def make_foreign_object(module, name, **functions):
    """Return an object of a library that is not installed here, with the given functions."""
    kind = type(name, (), {"__module__": module} | functions)
    return kind()


async def coroutine_function(*_, **__):
    raise NotImplementedError


def plain_function(*_, **__):
    raise NotImplementedError


def make_s3_object(name, **options):
    return getattr(boto3, name)("s3", **AWS, **options)


mongo = pymongo.MongoClient(connect=False)
asynchronous_mongo = pymongo.AsyncMongoClient(connect=False)

NOT_STORES = {
    "a path": lambda: Path("history"),
    "None": lambda: None,
    "a dict": dict,
    "a class of stores": lambda: MemoryStore,
    "an asynchronous store": AsyncStore,
    "a store without some methods": Incomplete,
    "a redis client": redis.Redis,
    "a mongo client": lambda: mongo,
    "a mongo database": lambda: mongo["x"],
    "a mongo collection": lambda: mongo["x"]["y"],
    "an s3 client": lambda: make_s3_object("client"),
}


@pytest.mark.parametrize("name", NOT_STORES)
def test_an_object_that_is_not_a_store_is_refused_with_its_class(name):
    store = NOT_STORES[name]()
    for take in (
        History,
        AsyncHistory,
        lambda store: (
            Conversation(store, Key("default", "a")) if not isinstance(store, HistoryStore) else History(store)
        ),
        History(MemoryStore()).copy_to,
    ):
        with pytest.raises(errors.InvalidInput, match=r"must be a HistoryStore, not") as caught:
            take(store)
        kind = store if isinstance(store, type) else type(store)
        assert kind.__qualname__ in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_url_in_place_of_a_store_is_refused_with_the_function_that_opens_it():
    with pytest.raises(errors.InvalidInput, match=r"must be a HistoryStore, not .*str.*call chathistory.open_store"):
        Conversation("file:./secret", Key("default", "a"))


def test_functions_that_wrap_each_other_in_a_circle_do_not_hang_the_check():
    def one(): ...
    def other(): ...

    one.__wrapped__, other.__wrapped__ = other, one
    assert list(checks.unwrap_function(one)) == [one, other] * 10
    assert not checks.is_coroutine_function(one)


def test_the_error_names_missing_methods_of_a_store():
    with pytest.raises(errors.InvalidInput, match=r"it has no damaged_keys, scan_keys, is_index_complete, .*BaseStore"):
        History(Incomplete())


def test_all_methods_of_the_contract_are_checked():
    methods = {name for name in dir(HistoryStore) if inspect.isfunction(getattr(HistoryStore, name))}
    assert {name for name in methods if not name.startswith("_")} == set(checks._STORE_METHODS)


def test_a_proxy_of_a_store_is_accepted():
    chat = History(Proxy(MemoryStore())).conversation("a")
    chat.append({"role": "user", "content": "hello"})
    assert len(chat.messages()) == 1


WRONG_CLIENTS = {
    RedisStore: {
        "a pipeline": (lambda: redis.Redis().pipeline(), "a pipeline"),
        "a proxy of a pipeline": (lambda: Proxy(redis.Redis().pipeline()), "a pipeline"),
        "for asyncio": (redis.asyncio.Redis, "for asyncio"),
        "a pipeline for asyncio": (lambda: redis.asyncio.Redis().pipeline(), "for asyncio"),
        "a cluster for asyncio": (lambda: redis.asyncio.RedisCluster("localhost"), "for asyncio"),
        "a proxy for asyncio": (lambda: Proxy(redis.asyncio.Redis()), "for asyncio"),
        "pub/sub": (lambda: redis.Redis().pubsub(), ""),
        "sentinels": (lambda: redis.sentinel.Sentinel([("localhost", 1)]), "master_for"),
        "a pool": (redis.ConnectionPool, ""),
        "another library": (
            lambda: make_foreign_object(
                "valkey.client", "Valkey", execute_command=plain_function, pipeline=plain_function
            ),
            "Valkey servers as well",
        ),
        "another library for asyncio": (
            lambda: make_foreign_object(
                "coredis.client", "Redis", execute_command=coroutine_function, pipeline=coroutine_function
            ),
            "for asyncio",
        ),
        "the class": (lambda: redis.Redis, "not an instance"),
        "a URL": (lambda: "redis://user:secret@host/0", "open_store"),
        "None": (lambda: None, ""),
    },
    MongoStore: {
        "for asyncio": (lambda: asynchronous_mongo, "for asyncio"),
        "a proxy for asyncio": (lambda: Proxy(asynchronous_mongo), "for asyncio"),
        "motor": (
            lambda: make_foreign_object("motor.motor_asyncio", "AsyncIOMotorClient", get_database=plain_function),
            "for asyncio",
        ),
        "a database": (lambda: mongo["x"], "pass the client itself"),
        "a proxy of a database": (lambda: Proxy(mongo["x"]), "pass the client itself"),
        "a collection": (lambda: mongo["x"]["y"], "pass the client itself"),
        "a database for asyncio": (lambda: asynchronous_mongo["x"], "pass the client itself"),
        "the class": (lambda: pymongo.MongoClient, "not an instance"),
        "a URL": (lambda: "mongodb://user:secret@host/0", "open_store"),
        "None": (lambda: None, ""),
    },
    lambda client: S3Store(client, bucket="history"): {
        "a resource": (lambda: make_s3_object("resource"), ".meta.client"),
        "a bucket": (lambda: make_s3_object("resource").Bucket("x"), ".meta.client"),
        "a session": (lambda: boto3.Session(**AWS), ""),
        "another service": (lambda: boto3.client("dynamodb", **AWS), ""),
        "aioboto3": (lambda: make_foreign_object("aiobotocore.session", "ClientCreatorContext"), "for asyncio"),
        "aiobotocore": (
            lambda: make_foreign_object(
                "aiobotocore.client", "S3", get_object=plain_function, _make_api_call=coroutine_function
            ),
            "for asyncio",
        ),
        "a wrapper for asyncio": (
            lambda: make_foreign_object(
                "mine",
                "Bucket",
                **dict.fromkeys(
                    ("get_object", "put_object", "delete_object", "delete_objects", "list_objects_v2"),
                    coroutine_function,
                ),
            ),
            "for asyncio",
        ),
        "the class": (lambda: boto3.Session, "not an instance"),
        "a URL": (lambda: "s3://secret/x", "open_store"),
        "None": (lambda: None, ""),
    },
    FileStore: {
        "a URL": (lambda: "file:./history", "open_store"),
        "a number": (lambda: 3, "not int"),
        "bytes": (lambda: b"history", "not bytes"),
        "None": (lambda: None, "NoneType"),
        "a store": (MemoryStore, "MemoryStore"),
    },
    MemoryStore: {"a number": (lambda: 3, "not int"), "None": (lambda: None, "NoneType")},
}


@pytest.mark.parametrize(
    ("store", "name"), [(store, name) for store, clients in WRONG_CLIENTS.items() for name in clients]
)
def test_a_wrong_client_is_refused_with_its_module_and_class(store, name):
    make, words = WRONG_CLIENTS[store][name]
    client = make()
    with pytest.raises(errors.ConfigError) as caught:
        store(client)
    kind = client if isinstance(client, type) else type(client)
    message = str(caught.value)
    assert kind.__qualname__ in message or "not a URL" in message
    assert words in message
    assert "secret" not in message


RIGHT_CLIENTS = {
    RedisStore: [redis.Redis, lambda: Proxy(redis.Redis()), type("Mine", (redis.Redis,), {})],
    MongoStore: [lambda: mongo, lambda: Proxy(mongo)],
    lambda client: S3Store(client, bucket="history"): [
        lambda: make_s3_object("client"),
        lambda: Proxy(make_s3_object("client")),
    ],
    FileStore: [lambda: Path("history"), lambda: "history"],
    MemoryStore: [str, lambda: "named"],
}


@pytest.mark.parametrize(("store", "make"), [(store, make) for store, made in RIGHT_CLIENTS.items() for make in made])
def test_a_right_client_or_a_proxy_of_it_is_accepted(store, make):
    with store(make()) as opened:
        assert opened.traits == type(opened).traits


@pytest.mark.parametrize(
    "made", [lambda: MongoStore(mongo, database=mongo["x"]), lambda: S3Store(make_s3_object("client"), bucket=3)]
)
def test_a_name_that_is_not_text_is_refused(made):
    with pytest.raises(errors.ConfigError, match="must be"):
        made()


# Forks.


def use_in_child(store):
    """Return the number of messages that a forked child reads with `store`, or the error that it gets."""

    def work():
        try:
            chat = History(store).conversation("child")
            chat.append({"role": "user", "content": "hello"})
            return {"result": str(len(chat.messages()))}
        except errors.StoreClosed as error:
            return {"result": str(error)}

    return run_in_child(work)["result"]


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    with open_store("memory:" if request.param == "memory" else f"file:{tmp_path}/store") as store:
        yield store


def test_a_store_opened_before_a_fork_and_not_used_serves_both(store):
    history = History(store)
    history.conversation("a")  # does no input or output, so the store is not used yet
    assert use_in_child(store) == "1"
    history.conversation("a").append({"role": "user", "content": "hello"})
    assert len(history.conversation("a").messages()) == 1


def test_a_store_used_before_a_fork_says_how_to_open_one_in_the_child(store):
    History(store).conversation("a").append({"role": "user", "content": "hello"})
    message = use_in_child(store)
    assert "in the child, open another one" in message
    assert "post_fork" in message
    assert "worker_process_init" in message


def test_two_children_of_one_master_share_a_store_that_was_not_used(tmp_path):
    """Like gunicorn with --preload: the master opens the store, the workers use it."""
    store = open_store(f"file:{tmp_path}/store")
    assert [use_in_child(store), use_in_child(store)] == ["1", "2"]
    store.close()


def test_an_async_history_used_before_a_fork_raises_an_error_and_does_not_hang(tmp_path):
    history = AsyncHistory(open_store(f"file:{tmp_path}/store"))
    asyncio.run(history.list())

    def work():
        try:
            asyncio.run(history.list())
        except errors.StoreClosed as error:
            return {"error": str(error)}
        return {"error": "none"}

    assert "this AsyncHistory was used before a fork()" in run_in_child(work)["error"]


def test_a_fork_while_another_thread_holds_the_lock_of_local_states_blocks_no_child(tmp_path):
    from chathistory.log import local_state

    store = open_store(f"file:{tmp_path}/store")
    with local_state._local_states_lock:
        assert use_in_child(store) == "1"


# Pickling.


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_the_error_of_pickling_says_what_to_do_instead(store, how):
    history = History(store)
    facade = AsyncHistory(store)
    for value in (store, history, history.conversation("a"), facade, facade.conversation("a")):
        with pytest.raises(TypeError, match=r"cannot be pickled or copied: pass .* in the other process") as caught:
            how(value)
        assert type(value).__name__ in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        lambda: RedisStore(redis.Redis()),
        lambda: MongoStore(mongo),
        lambda: S3Store(make_s3_object("client"), bucket="history"),
        lambda: open_store("redis://user:secret@localhost/0"),
        lambda: open_store("s3://history/x"),
    ],
)
def test_the_error_of_pickling_a_store_quotes_no_secret(made, monkeypatch):
    monkeypatch.setitem(os.environ, "AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(TypeError, match=r"call chathistory\.open_store") as caught:
        pickle.dumps(made())
    assert "secret" not in str(caught.value)
