"""From a URL to boto3's client, which is made at the first use: opening a store reads and asks nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import create_loader

from chathistory.checks import class_name, is_coroutine_function
from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL, parse_seconds

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "OPTIONS",
    "TIMEOUT",
    "S3ClientSettings",
    "check_client",
    "normalize_prefix",
    "split_location",
    "write_options",
]

TIMEOUT = 10.0
_CONNECT_TIMEOUT = 5.0
_CONNECTIONS = 70
_LONGEST_PREFIX = 500
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_METHODS = ("get_object", "put_object", "delete_object", "delete_objects", "list_objects_v2")


def _make_choice_option(*words: str) -> Option:
    def parse(value: object) -> str:
        if value not in words:
            raise ConfigError(f"must be one of {', '.join(words)}")
        return str(value)

    return Option(parse, None, f"one of {', '.join(words)}")


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError("must be text, and not empty")
    return value


def _parse_endpoint(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/@?#\s]+/?", value):
        raise ConfigError("must be a URL such as https://s3.example.com, without user, path or query")
    return value


OPTIONS: Mapping[str, Option] = {
    "region": Option(_parse_text, None, "the bucket's region; not given: what boto3 finds"),
    "endpoint_url": Option(_parse_endpoint, None, "the service, if it is not AWS"),
    "profile": Option(_parse_text, None, "the profile of boto3's configuration with the credentials"),
    "addressing": _make_choice_option("auto", "path", "virtual"),
    "sse": _make_choice_option("AES256", "aws:kms"),
    "kms_key": Option(_parse_text, None, "the key that encrypts with sse=aws:kms; not given: the account's own"),
    "storage_class": Option(_parse_text, None, "the storage class of all objects, such as INTELLIGENT_TIERING"),
    "recency": _make_choice_option("bucket", "exact"),
    "timeout": Option(parse_seconds, TIMEOUT, "seconds without an answer after which a request counts as lost"),
}


def check_client(client: Any) -> None:
    """Raise `ConfigError`, naming module and class, for what is no client that this store can use.

    Known wrong objects are named; any other object that has the methods (a proxy, a fake) is accepted.
    """
    methods = [getattr(client, method, None) for method in _METHODS]
    is_async = any(map(is_coroutine_function, [getattr(client, "_make_api_call", None), *methods]))
    if isinstance(client, str):
        hint = "; pass a URL to open_store(...)"
    elif type(client).__module__.partition(".")[0] in ("aiobotocore", "aioboto3") or is_async:
        hint = ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store as well"
    elif type(client).__module__ == "boto3.resources.factory":
        hint = ", a resource; its client is `.meta.client`"
    elif isinstance(client, type) or not all(map(callable, methods)):
        hint = ""
    else:
        return
    raise ConfigError(f'client: must be a boto3.client("s3"), not {class_name(client)}{hint}')


def split_location(url: StoreURL) -> tuple[str, str]:
    """Return the bucket and the prefix of a URL. Raises `ConfigError`."""
    bucket, _, prefix = url.path.partition("/")
    if not url.location.startswith("//") or not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket):
        raise ConfigError("s3: needs a bucket, such as s3://my-bucket/history")
    return bucket, prefix


def normalize_prefix(prefix: str) -> str:
    """Return a prefix as it stands before all names: empty, or ending with a slash. Raises `ConfigError`."""
    parts = [part for part in prefix.split("/") if part]
    if any(part in {".", ".."} or not part.isprintable() for part in parts) or len(prefix.encode()) > _LONGEST_PREFIX:
        raise ConfigError(
            f"s3: a prefix must have printable parts other than . and .., and at most {_LONGEST_PREFIX} bytes"
        )
    return "".join(f"{part}/" for part in parts)


def write_options(sse: str | None, kms_key: str | None, storage_class: str | None) -> dict[str, str]:
    """Return the arguments that every PUT has for encryption and storage class. Raises `ConfigError`."""
    if kms_key is not None and sse != "aws:kms":
        raise ConfigError("s3: the option kms_key needs sse=aws:kms")
    if storage_class in _ARCHIVES:
        raise ConfigError(f"s3: storage_class must be one whose objects can be read at once, not {storage_class}")
    named = {"ServerSideEncryption": sse, "SSEKMSKeyId": kms_key, "StorageClass": storage_class}
    return {name: value for name, value in named.items() if value is not None}


_get_loader = lru_cache(maxsize=1)(create_loader)
"""Returns what reads boto3's descriptions of services: once per process, for it takes longer than all the rest."""


@dataclass(frozen=True, slots=True)
class S3ClientSettings:
    """What boto3's client is made with."""

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    addressing: str | None = None
    timeout: float = TIMEOUT

    def create_client(self) -> S3Client:
        """Make a client: boto3 finds the credentials; it does not repeat requests, for this is done here.

        It adds no checksums of its own: many services do not know them, and some would store them with the bytes. What
        is stored carries ours.
        """
        s3: Any = {"addressing_style": self.addressing} if self.addressing else None
        config = Config(
            connect_timeout=min(self.timeout, _CONNECT_TIMEOUT),
            read_timeout=self.timeout,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3=s3,
        )
        core = botocore.session.get_session()
        core.register_component("data_loader", _get_loader())
        session = boto3.session.Session(botocore_session=core, profile_name=self.profile, region_name=self.region)
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)
