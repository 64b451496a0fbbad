"""From a URL to boto3's client, which is created at the first use: opening a store makes no request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import create_loader
from botocore.utils import parse_timestamp

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
        raise ConfigError("must be text that is not empty")
    return value


def _parse_endpoint(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/@?#\s]+/?", value):
        raise ConfigError("must be a URL without user, path and query, such as https://s3.example.com")
    return value


OPTIONS: Mapping[str, Option] = {
    "region": Option(_parse_text, None, "the bucket's region; unless given: from boto3's configuration"),
    "endpoint_url": Option(_parse_endpoint, None, "the URL of the service, if it is not AWS"),
    "profile": Option(_parse_text, None, "the profile with the credentials, in boto3's configuration"),
    "addressing": _make_choice_option("auto", "path", "virtual"),
    "sse": _make_choice_option("AES256", "aws:kms"),
    "kms_key": Option(_parse_text, None, "the key for sse=aws:kms; unless given: the account's own"),
    "storage_class": Option(_parse_text, None, "the storage class of all objects, such as INTELLIGENT_TIERING"),
    "recency": _make_choice_option("bucket", "exact"),
    "timeout": Option(parse_seconds, TIMEOUT, "seconds without a response after which a request counts as lost"),
}


def check_client(client: Any) -> None:
    """Check that an object can be used as the client of a store.

    Any object with the methods is accepted (a proxy, a fake), except known wrong ones.

    Raises:
        ConfigError: It cannot be used. The message has its module and class, and a hint for known wrong objects.
    """
    methods = [getattr(client, method, None) for method in _METHODS]
    is_async = any(map(is_coroutine_function, [getattr(client, "_make_api_call", None), *methods]))
    if isinstance(client, str):
        hint = "; pass a URL to open_store(...)"
    elif type(client).__module__.partition(".")[0] in ("aiobotocore", "aioboto3") or is_async:
        hint = ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store as well"
    elif type(client).__module__ == "boto3.resources.factory":
        hint = ", a resource; pass its client, `.meta.client`"
    elif isinstance(client, type) or not all(map(callable, methods)):
        hint = ""
    else:
        return
    raise ConfigError(f'client: must be a boto3.client("s3"), not {class_name(client)}{hint}')


def split_location(url: StoreURL) -> tuple[str, str]:
    """Return the bucket and the prefix of a URL. Raises `ConfigError`."""
    bucket, _, prefix = url.path.partition("/")
    if not url.location.startswith("//") or not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket):
        raise ConfigError("s3: must have the name of a bucket, such as s3://my-bucket/history")
    return bucket, prefix


def normalize_prefix(prefix: str) -> str:
    """Return a prefix in the form for all names: empty, or with a slash at the end. Raises `ConfigError`."""
    parts = [part for part in prefix.split("/") if part]
    if any(part in {".", ".."} or not part.isprintable() for part in parts) or len(prefix.encode()) > _LONGEST_PREFIX:
        raise ConfigError(
            f"s3: a prefix must have at most {_LONGEST_PREFIX} bytes, and parts that are printable and not . or .."
        )
    return "".join(f"{part}/" for part in parts)


def write_options(sse: str | None, kms_key: str | None, storage_class: str | None) -> dict[str, str]:
    """Return the arguments of every PUT for encryption and storage class.

    Args:
        sse: "AES256" or "aws:kms"; None for the bucket's default.
        kms_key: The key for "aws:kms"; None for the account's own.
        storage_class: The storage class; None for the service's default.

    Raises:
        ConfigError: They do not fit together, or the class is an archive.
    """
    if kms_key is not None and sse != "aws:kms":
        raise ConfigError("s3: kms_key must be used with sse=aws:kms; add it, or leave kms_key out")
    if storage_class in _ARCHIVES:
        raise ConfigError(
            f"s3: storage_class must be one with immediate access, such as STANDARD_IA, not {storage_class}"
        )
    named = {"ServerSideEncryption": sse, "SSEKMSKeyId": kms_key, "StorageClass": storage_class}
    return {name: value for name, value in named.items() if value is not None}


_get_loader = lru_cache(maxsize=1)(create_loader)
"""Returns the loader of boto3's service descriptions; one per process, because it takes longer than all the rest."""


@dataclass(frozen=True, slots=True)
class S3ClientSettings:
    """The settings of boto3's client."""

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    addressing: str | None = None
    timeout: float = TIMEOUT

    def create_client(self) -> S3Client:
        """Create a client. boto3 finds the credentials; it does not repeat requests, because `Bucket` does.

        It adds no checksums of its own: many services do not support them, and some would store them with the bytes.
        The stored lines have checksums of this package.
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
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
        session = boto3.session.Session(botocore_session=core, profile_name=self.profile, region_name=self.region)
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)


def _parse_time(value: Any) -> datetime:
    """Parse a time in a response; the parser of boto3 takes more than half of the time that a listing takes."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return parse_timestamp(value)
