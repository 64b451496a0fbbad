"""Many writers, threads and processes, with one conversation; and foreign objects in the bucket."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chathistory_s3 import S3Store
from s3_samples import HOUR, KEY, NOW, bodies, head_of, make_conversation, objects, open_s3_store, revision

from chathistory import Key
from chathistory.errors import Conflict

HERE = Path(__file__).parent


def persist(store, name, count):
    head = head_of(store)
    for at in range(count):
        given = revision()
        while True:
            try:
                head = store.append(KEY, [f"{name} {at} {'x' * 4000}", f"{name} {at} b"], after=head, revision=given)
                break
            except Conflict as conflict:
                head = conflict.head


@pytest.mark.parametrize("process_count", [2, pytest.param(8, marks=pytest.mark.stress)])
def test_threads_and_processes_on_one_conversation(server, client, bucket, store, process_count):
    thread_count = 2 * process_count
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import s3_writer; s3_writer.main(*sys.argv[1:])"
    url = f"s3://{bucket}/history?timeout=60&endpoint_url={server.url}"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, url, f"process{at}", "4"], env=os.environ)
        for at in range(process_count)
    ]
    threads = [threading.Thread(target=persist, args=(store, f"thread{at}", 4)) for at in range(thread_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.wait(600) for writer in writers] == [0] * process_count
    found = bodies(store)
    names = [f"thread{at}" for at in range(thread_count)] + [f"process{at}" for at in range(process_count)]
    due = {f"{name} {at}" for name in names for at in range(4)}
    assert sorted(body.rsplit(" ", 1)[0] for body in found[::2]) == sorted(due)
    assert [body.rsplit(" ", 1)[0] for body in found[1::2]] == [body.rsplit(" ", 1)[0] for body in found[::2]]
    segments = [name for name in objects(client, bucket) if "/s/" in name]
    assert len(segments) == len(store._heads.load(KEY).content.segments), "overtaken writers left segments behind"


def test_what_is_not_ours_is_not_touched(client, bucket, server):
    strange = [
        "historybar/c/scope/x",
        "history.txt",
        "history/README",
        "history/c/readme.TXT",
        "history/c/scope/A B",
        "history/m/scope/notes",
        "history/s/x",
        "c/scope/conversation",
        "history/m/scope/1/x/y",
    ]
    for name in strange:
        client.put_object(Bucket=bucket, Key=name, Body=b"not ours")
    with S3Store(client, bucket=bucket, prefix="history") as store:
        make_conversation(store, 3)
        assert list(store.keys()) == [KEY]
        assert len(store.heads("scope").items) == 1
        store.sweep(now=4e9)
        store.forget(KEY, before=3)
        store.delete(KEY)
    assert sorted(objects(client, bucket)) == sorted(strange)


def test_a_prefix_never_reaches_a_longer_one(client, bucket, server):
    with S3Store(client, bucket=bucket, prefix="foo") as foo, S3Store(client, bucket=bucket, prefix="foobar") as foobar:
        make_conversation(foobar, 2)
        assert list(foo.keys()) == []
        assert foo.heads("scope").items == []
        assert foo.read(KEY) is None
        make_conversation(foo, 1)
        foo.sweep(now=4e9, grace=0)
        assert foo.delete(KEY)
        assert bodies(foobar) is not None
        assert list(foobar.keys()) == [KEY]


def test_a_client_handed_in_stays_open(client, bucket, server):
    S3Store(client, bucket=bucket).close()
    client.list_objects_v2(Bucket=bucket)


def test_long_names_are_read_back(client, bucket, store):
    keys = [Key("é" * 255, "x"), Key("s", "😀" * 255), Key("s", "A/b")]
    for key in keys:
        make_conversation(store, 1, key=key)
    assert sorted(store.keys()) == sorted(keys)


@pytest.mark.parametrize("recency", ["bucket", "exact"])
def test_a_conversation_is_listed_while_its_marker_moves(client, bucket, server, monkeypatch, recency):
    with (
        open_s3_store(client, bucket, "history", recency=recency) as writer,
        open_s3_store(client, bucket, "history", recency=recency) as reader,
    ):
        head = writer.append(KEY, ["first"], after=None, revision=revision(updated=NOW))
        put, peek, pages = writer._heads.put, reader._heads.peek, []

        def list_and_put(*args, **options):  # both markers are there now, and the head names the older one
            stored = []

            def peek_all(names, scope=None):
                found = []
                for name in names:
                    found.append(peek(name, scope))
                    if not stored:  # the newer marker was looked at: from now on the head names it
                        stored.append(put(*args, **options))
                return found

            monkeypatch.setattr(reader._heads, "peek_all", peek_all)
            pages.append(reader.heads("scope"))
            return stored[0]

        monkeypatch.setattr(writer._heads, "put", list_and_put)
        writer.append(KEY, ["second"], after=head, revision=revision(updated=NOW + 2 * HOUR))
        [page] = pages
        assert [found.key for found in page.items] == [KEY]
