"""Signatures: a few facts with a MAC, so that changes are detected.

The key is the same everywhere, so that a stored conversation can continue after a restart of the fake.
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

_KEY = b"the fake API has no secrets"
_DIGEST = 32
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical(value: Any) -> str:
    """Return a JSON value as text, without cache markers and with sorted keys."""
    return json.dumps(without_markers(value), sort_keys=True, ensure_ascii=False)


def digest(text: str) -> str:
    """Return a short hash of a text. A lone surrogate counts as U+FFFD, since requests cannot contain one."""
    return hashlib.sha256(_SURROGATE.sub("\ufffd", text).encode()).hexdigest()[:24]


def make_signature(facts: dict[str, Any]) -> str:
    """Return a signature that contains these facts."""
    plain = json.dumps(facts).encode()
    return base64.b64encode(hmac.digest(_KEY, plain, "sha256") + plain).decode()


def read_signature(signature: str, *, holding: str) -> dict[str, Any] | None:
    """Return the facts of a signature.

    Args:
        signature: The signature.
        holding: The name of a fact that it must contain.

    Returns:
        The facts, or None if the signature is not from this fake or lacks the fact.
    """
    try:
        both = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return None
    genuine = hmac.compare_digest(both[:_DIGEST], hmac.digest(_KEY, both[_DIGEST:], "sha256"))
    facts: dict[str, Any] = json.loads(both[_DIGEST:]) if genuine else {}
    return facts if holding in facts else None
