"""Checks of the headers, the size, and the fields of the body.

Each check yields the values for its rule's error text, once for each fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api import request_fields
from chathistory.testing.fake_api.request import UNREADABLE, ApiRequest

__all__ = [
    "bad_beta",
    "bad_version",
    "beta_field",
    "binding_without_beta",
    "empty_warmup",
    "missing_field",
    "missing_key",
    "missing_version",
    "no_object",
    "not_json",
    "not_simulated",
    "retired_model",
    "sampling",
    "too_large",
    "too_many_messages",
    "unknown_field",
    "wrong_field",
]

MOST_MESSAGES = 100_000
_VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
_BETA = re.compile(r"[a-z0-9-]+-20\d\d-\d\d-\d\d")

Found = Iterator[dict[str, Any]]


def too_large(request: ApiRequest) -> Found:
    """The body is larger than 32 MB, or than `Limits.request`."""
    if len(request.raw) > request.setting.limits.request:
        yield {}


def missing_key(request: ApiRequest) -> Found:
    """There is neither a bearer token nor an `x-api-key`."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer").strip()
    if not bearer and not request.headers.get("x-api-key"):
        yield {}


def missing_version(request: ApiRequest) -> Found:
    """The header `anthropic-version` is missing."""
    if not request.version:
        yield {}


def bad_version(request: ApiRequest) -> Found:
    """The version is not one of the API."""
    if request.version not in _VERSIONS:
        yield {"version": request.version}


def bad_beta(request: ApiRequest) -> Found:
    """A value of `anthropic-beta` is not a name with a date; which names exist is not checked."""
    for beta in request.betas:
        if not _BETA.fullmatch(beta):
            yield {"beta": beta}


def not_json(request: ApiRequest) -> Found:
    """The body is not JSON."""
    if request.body is UNREADABLE:
        yield {}


def no_object(request: ApiRequest) -> Found:
    """The body is JSON, but not an object."""
    if not isinstance(request.body, dict):
        yield {}


def missing_field(request: ApiRequest) -> Found:
    """A required field of the body is missing."""
    for name in request_fields.REQUIRED:
        if name not in request.body and not (request.counts_only and name == "max_tokens"):
            yield {"path": name}


def sampling(request: ApiRequest) -> Found:
    """The body has a sampling parameter, which the newest version refuses with any value."""
    for name in request_fields.SAMPLING:
        if name in request.body and request.version >= "2026-10-21":
            yield {"path": name}


def beta_field(request: ApiRequest) -> Found:
    """A field of the body is sent without its beta header."""
    for name, (_, beta) in request_fields.BETA_FIELDS.items():
        if name in request.body and not request.has_beta(beta):
            yield {"path": name}


def unknown_field(request: ApiRequest) -> Found:
    """A field of the body is unknown."""
    known = {
        *request_fields.body_fields(counts_only=request.counts_only),
        *request_fields.BETA_FIELDS,
        *request_fields.SAMPLING,
    }
    for name in request.body:
        if name not in known:
            yield {"path": name}


def wrong_field(request: ApiRequest) -> Found:
    """A field of the body has the wrong type."""
    kinds = dict(request_fields.BODY) | {name: kind for name, (kind, _) in request_fields.BETA_FIELDS.items()}
    for name, value in request.body.items():
        if not request_fields.fits_kind(kinds.get(name, "any"), value):
            yield {"path": name, "wanted": request_fields.describe_kind(kinds[name])}


def empty_warmup(request: ApiRequest) -> Found:
    """`max_tokens` is negative, or 0 (which fills the cache and answers nothing) in a request that streams."""
    count = request.body.get("max_tokens", 1)
    if count < 0 or (count == 0 and request.body.get("stream")):
        yield {}


def binding_without_beta(request: ApiRequest) -> Found:
    """`thinking.block_binding` is sent without its beta header."""
    thinking = request.body.get("thinking", {})
    if "block_binding" in thinking and not request.has_beta("thinking-binding-controls"):
        yield {"path": f"thinking.{thinking.get('type', 'adaptive')}.block_binding"}


def not_simulated(request: ApiRequest) -> Found:
    """The fake does not support this, and refuses it instead of ignoring it."""
    if request.body.get("thread") is not None:
        yield {"path": "thread"}


def retired_model(request: ApiRequest) -> Found:
    """The model is unknown or retired."""
    if not request.setting.models.serves(request.body["model"]):
        yield {"model": request.body["model"]}


def too_many_messages(request: ApiRequest) -> Found:
    """There are more than 100,000 messages."""
    if len(request.body["messages"]) > MOST_MESSAGES:
        yield {}
