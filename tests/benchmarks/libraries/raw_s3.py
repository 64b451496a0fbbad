"""The raw form of `s3:`: the fewest requests that move the same bytes. One PUT for a turn, one GET to read it back.

No program could work like this: the objects that are read whole are written once, by `fill`. A listing is a LIST of all
conversations, since S3 sorts by name only.
"""

from __future__ import annotations

import heapq
import json
from typing import Any, ClassVar

import boto3

from ..samples import Turn, fresh_name
from .library_base import MeasuredLibrary

__all__ = ["RawS3"]


class RawS3(MeasuredLibrary):
    """The limit, not a design."""

    name: ClassVar[str] = "raw"
    imports: ClassVar[str] = "import boto3, json"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        where, _, endpoint = place.removeprefix("s3://").partition("?endpoint_url=")
        self._bucket = where.partition("/")[0]
        self._client = boto3.client("s3", endpoint_url=endpoint)

    def append(self, name: str, turn: Turn) -> object:
        return self._put(f"{name}/turns/{fresh_name()}", turn)

    def fill(self, name: str, turns: list[Turn]) -> None:
        messages = [message for turn in turns for message in turn]
        self._put(f"{name}/all", messages)
        self._put(f"{name}/tail", messages[-20:])

    def tail(self, name: str) -> list[Any]:
        return self._get(f"raw/{name}/tail")

    def load(self, name: str) -> list[Any]:
        return self._get(f"raw/{name}/all")

    def texts(self, name: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"raw/{name}/turns/")
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return [message["content"] if index == 0 else message["content"][0]["text"]
                for key in keys for index, message in enumerate(self._get(key))]  # fmt: skip

    def fill_conversations(self, count: int) -> None:
        for number in range(count):
            self._put(f"listing-{count}/chat-{number}", [])

    def recent(self, count: int) -> list[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"raw/listing-{count}/"
        )
        found = (each for page in pages for each in page["Contents"])
        return heapq.nlargest(20, found, key=lambda each: each["LastModified"])

    def close(self) -> None:
        self._client.close()

    def _put(self, key: str, messages: list[Any]) -> object:
        return self._client.put_object(Bucket=self._bucket, Key=f"raw/{key}", Body=json.dumps(messages).encode())

    def _get(self, key: str) -> list[Any]:
        return json.loads(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())
