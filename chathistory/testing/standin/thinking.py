"""Thinking and its signatures: each block is bound to the conversation that it was thought in.

A signature seals four facts: the model, a hash of all that stood before the block (system prompt, tools, messages,
earlier blocks of the reply; without cache markers and without thinking), the signature before it, and a hash of its
text. So it shows when the block comes back whether its text was changed, whether anything before it was, and whether
a thinking block between it and its predecessor is gone. Thinking may be missing from the start: the first block that is
there need not name its predecessor. The thinking of other models is not looked at: it would be dropped.

The key is the same everywhere, so that a conversation that was stored goes on after a restart of the stand-in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
from dataclasses import dataclass
from typing import Any

from chathistory.testing.standin.request import Place, Request
from chathistory.testing.standin.usage import without_markers

__all__ = ["PREFIX_MISMATCH", "THINKING", "Returned", "Thinking", "returned", "signature_of"]

THINKING = ("thinking", "redacted_thinking")
PREFIX_MISMATCH = "prefix_binding_mismatch"
MODEL_MISMATCH = "model_binding_mismatch"
_KEY = b"the stand-in has no secrets"
_DIGEST = 32
_FIELD = {"thinking": "signature", "redacted_thinking": "data"}


@dataclass(frozen=True, slots=True)
class Returned:
    """A thinking block that came back.

    seal: what its signature seals; None: it is none of ours.
    dropped: why it could not be shown to the model, in the API's word for it; None: it can.
    """

    place: Place
    seal: dict[str, Any] | None
    dropped: str | None

    @property
    def tampered(self) -> bool:
        """Whether the signature is not ours, or the text was changed (text put in where there was none is ignored)."""
        if self.seal is None:
            return bool(self.place.type == "thinking")
        return self.seal["text"] not in ("", _hash(self.place.block.get("thinking", "")))


def signature_of(block: dict[str, Any]) -> str:
    """Return the signature of a thinking block; that of a redacted one is its data."""
    return str(block[_FIELD[block["type"]]])


@dataclass(slots=True)
class _Walk:
    """A walk through a conversation: the hash of all so far but thinking, and of the last signature that counts."""

    model: str
    prefix: str
    previous: str | None = None

    def over(self, request: Request) -> list[Returned]:
        found = []
        for place in request.outer_places:
            if place.type in THINKING:
                found.append(self._thought(place))
            elif place.message is not None:
                self.step(place.within, place.block)
        return found

    def step(self, role: str, block: dict[str, Any]) -> None:
        if block.get("type") in THINKING:
            self.previous = _hash(signature_of(block))
        else:
            self.prefix = _hash(self.prefix + _canonical([role, block]))

    def _thought(self, place: Place) -> Returned:
        seal = _opened(signature_of(place.block))
        if seal is not None and seal["model"] != self.model:
            return Returned(place, seal, MODEL_MISMATCH)
        if seal is not None and self._is_lost(seal):
            return Returned(place, seal, PREFIX_MISMATCH)
        self.step(place.within, place.block)
        return Returned(place, seal, None)

    def _is_lost(self, seal: dict[str, Any]) -> bool:
        """Tell whether it was thought elsewhere, or its predecessor is missing between others; so is all after it."""
        return self.prefix != seal["prefix"] or self.previous not in (None, seal["previous"])


def returned(request: Request) -> list[Returned]:
    """Return the thinking blocks that came back with a request."""
    if not any(place.type in THINKING for place in request.outer_places):
        return []
    return _Walk(request.body["model"], _base(request)).over(request)


class Thinking:
    """What the stand-in knows of the thinking that it gave out; safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_calls: dict[str, tuple[str, ...]] = {}

    def signed(self, request: Request, content: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
        """Return a reply's content with signatures where thinking has none, and remember what its tool calls follow."""
        if not any(block.get("type") in THINKING for block in content):
            return content
        walk = _Walk(model, _base(request))
        walk.over(request)
        ready = []
        for block in content:
            ready.append(_signed(block, walk))
            walk.step("assistant", ready[-1])
        self._remember(ready)
        return ready

    def _remember(self, content: list[dict[str, Any]]) -> None:
        thought = tuple(signature_of(block) for block in content if block.get("type") in THINKING)
        with self._lock:
            self._of_calls |= {block["id"]: thought for block in content if block.get("type") == "tool_use"}

    def before_call(self, name: str) -> tuple[str, ...]:
        """Return the signatures of the reply that made this tool call; none if it is not known."""
        with self._lock:
            return self._of_calls.get(name, ())


def _signed(block: dict[str, Any], walk: _Walk) -> dict[str, Any]:
    field = _FIELD.get(block.get("type", ""))
    if field is None or block.get(field):
        return block
    text = block.get("thinking", "")
    facts = {"model": walk.model, "prefix": walk.prefix, "previous": walk.previous, "text": text and _hash(text)}
    return {**block, field: _sealed(facts)}


def _base(request: Request) -> str:
    system = [place.block for place in request.outer_places if place.message is None]
    return _hash(_canonical([system, request.body.get("tools") or []]))


def _canonical(value: Any) -> str:
    return json.dumps(without_markers(value), sort_keys=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]


def _sealed(facts: dict[str, Any]) -> str:
    plain = json.dumps(facts).encode()
    return base64.b64encode(hmac.digest(_KEY, plain, "sha256") + plain).decode()


def _opened(signature: str) -> dict[str, Any] | None:
    try:
        both = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return None
    genuine = hmac.compare_digest(both[:_DIGEST], hmac.digest(_KEY, both[_DIGEST:], "sha256"))
    return json.loads(both[_DIGEST:]) if genuine else None
