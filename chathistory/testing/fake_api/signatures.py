"""Signatures: a few facts, sealed so that a change of them shows, and readable by the fake alone.

The key is the same everywhere, so that a conversation that was stored goes on after a restart of the fake.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import Any

from chathistory.testing.fake_api.token_usage import without_markers

__all__ = ["canonical", "digest", "make_signature", "read_signature"]

_KEY = b"the stand-in has no secrets"
_DIGEST = 32
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical(value: Any) -> str:
    """Return a JSON value as text, without cache markers; the order of keys does not count."""
    return json.dumps(without_markers(value), sort_keys=True, ensure_ascii=False)


def digest(text: str) -> str:
    """Return a short hash of a text. A lone surrogate, which no request can send back, counts as U+FFFD."""
    return hashlib.sha256(_SURROGATE.sub("\ufffd", text).encode()).hexdigest()[:24]


def make_signature(facts: dict[str, Any]) -> str:
    """Return a signature that holds these facts."""
    plain = json.dumps(facts).encode()
    return base64.b64encode(hmac.digest(_KEY, plain, "sha256") + plain).decode()


def read_signature(signature: str, *, holding: str) -> dict[str, Any] | None:
    """Return the facts of a signature; None: it is none of ours, or does not hold the fact that it should."""
    try:
        both = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return None
    genuine = hmac.compare_digest(both[:_DIGEST], hmac.digest(_KEY, both[_DIGEST:], "sha256"))
    facts: dict[str, Any] = json.loads(both[_DIGEST:]) if genuine else {}
    return facts if holding in facts else None
