"""What each backend holds, as files of the corpus: written from a store, and put back into a server.

    file/            the folder of a `file:` store
    redis.jsonl      {"key", "type", "value"} of each key; {"has_ttl": true} if the server removes it some day
    mongodb.jsonl    {"collection", "document"} in canonical extended JSON, and {"collection", "index"}
    s3.jsonl         {"key", "content_type", "metadata", "body"} of each object

Bytes are written as text in UTF-8; bytes that are not UTF-8 become lone surrogates ("surrogateescape").
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pymongo
import redis
from bson import json_util

BACKENDS = ("file", "redis", "mongodb", "s3")

SMALL = {
    "chathistory_s3.segments.MAX_TAIL_SIZE": 1024,
    "chathistory_mongodb.write.FULL_TAIL_SIZE": 2048,
    "chathistory_mongodb.write.KEPT_TAIL_SIZE": 768,
    "chathistory_mongodb.write.SEGMENT_SIZE": 600,
    "chathistory_mongodb.write.PIECE_LENGTH": 700,
}
"""Sizes from which on a backend moves, merges and splits records: the layout is the same, and the corpus is small."""


def dump_store(url: str, corpus: Path) -> None:
    """Write what the store with a URL holds into the folder of a corpus."""
    backend, place = urlsplit(url).scheme, _parse_place(url)
    if backend == "file":
        shutil.copytree(place["folder"], corpus / "file", ignore=shutil.ignore_patterns(".locks"))
    else:
        write_lines(corpus / f"{backend}.jsonl", _DUMPS[backend](**place))


def load_store(corpus: Path, url: str) -> None:
    """Put what the corpus has for a backend into the empty place with a URL."""
    backend, place = urlsplit(url).scheme, _parse_place(url)
    if backend == "file":
        load_files(corpus / "file", place["folder"])
    else:
        _LOADS[backend](read_lines(corpus / f"{backend}.jsonl"), **place)


def _parse_place(url: str) -> dict[str, Any]:
    """Return the arguments for the functions of a backend below."""
    parts = urlsplit(url)
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.scheme == "file":
        return {"folder": Path(parts.path)}
    if parts.scheme == "redis":
        return {"url": url.partition("?")[0], "prefix": options["prefix"]}
    if parts.scheme == "mongodb":
        return {"url": url}
    return {"endpoint_url": options["endpoint_url"], "bucket": parts.netloc, "prefix": f"{parts.path[1:]}/"}


def write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Write one JSON value on each line."""
    path.write_bytes(b"".join(f"{to_json(value)}\n".encode() for value in values))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON value of each line."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def to_json(value: Any) -> str:
    """Return JSON that keeps every difference: key order, -0.0, 1 and 1.0. It is ASCII if it has lone surrogates."""
    text = json.dumps(value, ensure_ascii=False)
    return text if _is_utf8(text) else json.dumps(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _to_text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _to_bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


# Files.


def load_files(source: Path, target: Path, *, times: bool = True) -> None:
    """Copy the folder of a store, and set the modification times, which git does not keep, as the store sets them."""
    shutil.copytree(source, target)
    for path in target.rglob("*.jsonl") if times else ():
        commits = [line for line in path.read_bytes().split(b"\n") if line.startswith(b'{"commit":')]
        updated = json.loads(commits[-1])["updated"] * 1000
        os.utime(path, ns=(updated, updated))


# Redis.


def dump_redis(url: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield what a Redis server holds below a prefix."""
    with redis.Redis.from_url(url) as client:
        for key in sorted(client.scan_iter(match=f"{prefix}*")):
            kind = client.type(key).decode()
            read: dict[str, Callable[[], Any]] = {
                "list": lambda key=key: [_to_text(value) for value in client.lrange(key, 0, -1)],
                "set": lambda key=key: sorted(_to_text(value) for value in client.smembers(key)),
                "zset": lambda key=key: [
                    [_to_text(value), score] for value, score in client.zrange(key, 0, -1, withscores=True)
                ],
            }
            name = _to_text(key.removeprefix(prefix.encode()))
            row = {"key": name, "type": kind, "value": read[kind]()}
            yield row if client.pttl(key) < 0 else {**row, "has_ttl": True}


def load_redis(rows: Iterable[dict[str, Any]], url: str, prefix: str) -> None:
    """Store keys below a prefix of a Redis server."""
    with redis.Redis.from_url(url) as client:
        for row in rows:
            key, values = prefix.encode() + _to_bytes(row["key"]), row["value"]
            if row["type"] == "list":
                client.rpush(key, *map(_to_bytes, values))
            elif row["type"] == "set":
                client.sadd(key, *map(_to_bytes, values))
            else:
                client.zadd(key, {_to_bytes(member): score for member, score in values})
            if row.get("has_ttl"):
                client.expire(key, 10**9)


# MongoDB.


def dump_mongodb(url: str) -> Iterator[dict[str, Any]]:
    """Yield the indexes and documents of a database."""
    with pymongo.MongoClient(url) as client:
        database = client.get_default_database()
        for name in sorted(database.list_collection_names()):
            for index in database[name].list_indexes():
                if index["name"] != "_id_":
                    yield {"collection": name, "index": _to_extended_json({**index, "v": 2})}
            for document in database[name].find().sort("_id"):
                yield {"collection": name, "document": _to_extended_json(document)}


def load_mongodb(rows: Iterable[dict[str, Any]], url: str) -> None:
    """Store indexes and documents in an empty database."""
    with pymongo.MongoClient(url) as client:
        database = client.get_default_database()
        for row in rows:
            value = json_util.loads(json.dumps(row.get("document") or row["index"]))
            if "document" in row:
                database[row["collection"]].insert_one(value)
            else:
                database.command("createIndexes", row["collection"], indexes=[value])


def _to_extended_json(value: Any) -> Any:
    return json.loads(json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS))


# S3.


def dump_s3(endpoint_url: str, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a bucket below a prefix."""
    client = boto3.client("s3", endpoint_url=endpoint_url)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", []):
            found = client.get_object(Bucket=bucket, Key=each["Key"])
            yield {
                "key": each["Key"].removeprefix(prefix),
                "content_type": found["ContentType"],
                "metadata": found["Metadata"],
                "body": _to_text(found["Body"].read()),
            }
    client.close()


def load_s3(rows: Iterable[dict[str, Any]], endpoint_url: str, bucket: str, prefix: str) -> None:
    """Store objects in a bucket below a prefix."""
    client = boto3.client("s3", endpoint_url=endpoint_url)
    for row in rows:
        kept = {"ContentType": row["content_type"], "Metadata": row["metadata"]}
        client.put_object(Bucket=bucket, Key=prefix + row["key"], Body=_to_bytes(row["body"]), **kept)
    client.close()


_DUMPS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "redis": dump_redis,
    "mongodb": dump_mongodb,
    "s3": dump_s3,
}
_LOADS: dict[str, Callable[..., None]] = {"redis": load_redis, "mongodb": load_mongodb, "s3": load_s3}
