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
from botocore.loaders import Loader, create_loader

from chathistory.checks import class_name, is_coroutine_function
from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL, seconds

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["OPTIONS", "TIMEOUT", "Connection", "check_client", "extra_of", "place_of", "prefix_of"]

TIMEOUT = 10.0
_CONNECT = 5.0
_CONNECTIONS = 70


def _one_of(*words: str) -> Option:
    def parse(value: object) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)} is due")
        return str(value)

    return Option(parse, None, f"one of {', '.join(words)}")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is due")
    return value


def _url(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/@?#\s]+/?", value):
        raise ValueError("a URL such as https://s3.example.com is due, without user, path or query")
    return value


OPTIONS: Mapping[str, Option] = {
    "region": Option(_text, None, "the bucket's region; not given: what boto3 finds"),
    "endpoint_url": Option(_url, None, "the service, if it is not AWS"),
    "profile": Option(_text, None, "the profile of boto3's configuration with the credentials"),
    "addressing": _one_of("auto", "path", "virtual"),
    "sse": _one_of("AES256", "aws:kms"),
    "kms_key": Option(_text, None, "the key that encrypts with sse=aws:kms; not given: the account's own"),
    "storage_class": Option(_text, None, "the storage class of all objects, such as INTELLIGENT_TIERING"),
    "recency": _one_of("bucket", "exact"),
    "timeout": Option(seconds, TIMEOUT, "seconds without an answer after which a request counts as lost"),
}


def check_client(client: Any) -> None:
    """Raise `ConfigError`, naming module and class, for what is no client that this store can use.

    Known wrong objects are named; any other object that has the methods (a proxy, a fake) is accepted.
    """
    problem = _problem(client)
    if problem is not None:
        raise ConfigError(f'client: must be a boto3.client("s3"), not {class_name(client)}{problem}')


_METHODS = ("get_object", "put_object", "delete_object", "delete_objects", "list_objects_v2")


def _problem(client: Any) -> str | None:
    """Return what is wrong with a client, to be read behind its class; "": it is something else; None: nothing is."""
    if isinstance(client, str):
        return "; open_store(...) makes a store of a URL"
    name = type(client).__module__.partition(".")[0]
    if name in ("aiobotocore", "aioboto3") or is_coroutine_function(getattr(client, "_make_api_call", None)):
        return ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store, too"
    methods = [getattr(client, method, None) for method in _METHODS]
    if isinstance(client, type) or not all(map(callable, methods)):
        resource = type(client).__module__ == "boto3.resources.factory"
        return ", a resource; its client is `.meta.client`" if resource else ""
    if any(map(is_coroutine_function, methods)):
        return ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store, too"
    return None


def place_of(url: StoreURL) -> tuple[str, str]:
    """Return the bucket and the prefix of a URL. Raises `ConfigError`."""
    bucket, _, prefix = url.path.partition("/")
    if not url.location.startswith("//") or not _BUCKET.fullmatch(bucket):
        raise ConfigError("s3: needs a bucket, such as s3://my-bucket/history")
    return bucket, prefix


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def prefix_of(prefix: str) -> str:
    """Return a prefix as it stands before all names: empty, or ending with a slash. Raises `ConfigError`."""
    parts = [part for part in prefix.split("/") if part]
    if any(part in {".", ".."} or not part.isprintable() for part in parts) or len(prefix.encode()) > _LONGEST:
        raise ConfigError(f"s3: a prefix has printable parts other than . and .., and at most {_LONGEST} bytes")
    return "".join(f"{part}/" for part in parts)


_LONGEST = 500


def extra_of(sse: str | None, kms_key: str | None, storage_class: str | None) -> dict[str, str]:
    """Return what every PUT says besides. Raises `ConfigError`."""
    if kms_key is not None and sse != "aws:kms":
        raise ConfigError("s3: the option kms_key needs sse=aws:kms")
    if storage_class is not None and storage_class in _FROZEN:
        raise ConfigError(f"s3: what is in {storage_class} cannot be read at once")
    named = {"ServerSideEncryption": sse, "SSEKMSKeyId": kms_key, "StorageClass": storage_class}
    return {name: value for name, value in named.items() if value is not None}


_FROZEN = {"GLACIER", "DEEP_ARCHIVE"}


@lru_cache(maxsize=1)
def _loader() -> Loader:
    """Return what reads boto3's descriptions of services: once per process, for it takes longer than all the rest."""
    return create_loader()


@dataclass(frozen=True, slots=True)
class Connection:
    """What boto3's client is made with."""

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    addressing: str | None = None
    timeout: float = TIMEOUT

    def client(self) -> S3Client:
        """Make a client: boto3 finds the credentials; it does not repeat requests, for this is done here.

        It adds no checksums of its own: many services do not know them, and some would store them with the bytes. What
        is stored carries ours.
        """
        s3: Any = {"addressing_style": self.addressing} if self.addressing else None
        config = Config(
            connect_timeout=min(self.timeout, _CONNECT),
            read_timeout=self.timeout,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3=s3,
        )
        core = botocore.session.get_session()
        core.register_component("data_loader", _loader())
        session = boto3.session.Session(botocore_session=core, profile_name=self.profile, region_name=self.region)
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)
