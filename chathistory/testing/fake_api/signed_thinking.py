"""Thinking and its signatures: each block is bound to the conversation that it was thought in.

A signature seals four facts: the model, a hash of all that stood before the block (system prompt, tools, messages,
earlier blocks of the reply; without cache markers and without thinking), the signature before it, and a hash of its
text. So it shows when the block comes back whether its text was changed, whether anything before it was, and whether
a thinking block between it and its predecessor is gone. Thinking may be missing from the start: the first block that is
there need not name its predecessor. The thinking of other models is not looked at: it would be dropped.

A compaction replaces what stood before, and may carry the hash of it along. Then two hashes are right for what follows:
the one of the conversation that was summarized, for thinking that is older than the compaction, and the one that begins
with the summary. A *walk* through a request knows both.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock
from chathistory.testing.fake_api.signatures import canonical, digest, make_signature, read_signature

__all__ = [
    "PREFIX_MISMATCH",
    "THINKING",
    "PrefixWalk",
    "ReturnedThinking",
    "ThinkingSigner",
    "base_of",
    "find_returned_thinking",
    "signature_of",
]

THINKING = ("thinking", "redacted_thinking")
PREFIX_MISMATCH = "prefix_binding_mismatch"
MODEL_MISMATCH = "model_binding_mismatch"
_FIELD = {"thinking": "signature", "redacted_thinking": "data"}


@dataclass(frozen=True, slots=True)
class ReturnedThinking:
    """A thinking block that came back.

    seal: what its signature seals; None: it is none of ours.
    dropped: why it could not be shown to the model, in the API's word for it; None: it can.
    """

    place: PlacedBlock
    facts: dict[str, Any] | None
    dropped: str | None

    @property
    def is_tampered(self) -> bool:
        """Whether the signature is not ours, or the text was changed (text put in where there was none is ignored)."""
        if self.facts is None:
            return bool(self.place.type == "thinking")
        return self.facts["text"] not in ("", digest(self.place.block.get("thinking", "")))


def signature_of(block: dict[str, Any]) -> str:
    """Return the signature of a thinking block; that of a redacted one is its data."""
    return str(block[_FIELD[block["type"]]])


@dataclass(slots=True)
class PrefixWalk:
    """A walk through a conversation: the hashes of all so far but thinking, and of the last signature that counts.

    prefixes: the newest first, to which new thinking is bound; others where a compaction carried them along.
    """

    model: str
    base: str
    prefixes: tuple[str, ...]
    previous: str | None = None
    carried: dict[str, Any] | None = None
    account: str = ""

    @classmethod
    def through(cls, request: ApiRequest, model: str) -> PrefixWalk:
        """Return a walk that has come to the end of a request."""
        walk = cls.begin(request, model)
        walk.walk_messages(request)
        return walk

    @classmethod
    def begin(cls, request: ApiRequest, model: str) -> PrefixWalk:
        """Return a walk that stands between the system prompt and the messages."""
        base = base_of(request)
        return cls(model, base, (base,), account=request.setting.account)

    def walk_messages(self, request: ApiRequest) -> list[ReturnedThinking]:
        """Walk through the messages, and return the thinking that is there."""
        found = []
        for place in request.live_places:
            if place.type in THINKING:
                found.append(self._check_block(place))
            elif place.message is not None:
                self.step(place.within, place.block)
        return found

    def step(self, role: str, block: dict[str, Any]) -> None:
        """Walk past a block."""
        if block.get("type") in THINKING:
            self.previous = digest(signature_of(block))
        elif block.get("type") == "compaction":
            self._restart_at_summary(block)
        else:
            self._resolve_carried(role)
            self.prefixes = tuple(digest(prefix + canonical([role, block])) for prefix in self.prefixes)

    def _restart_at_summary(self, block: dict[str, Any]) -> None:
        """Begin anew from a summary; one without content changes nothing."""
        if not block.get("content"):
            return
        self.prefixes = (digest(self.base + str(block["content"])),)  # the SDK adds a null to what it has streamed
        self.previous = None
        self.carried = read_signature(str(block.get("signature")), holding="summarized")

    def _resolve_carried(self, role: str) -> None:
        """Take up what a compaction carries, if what follows it is what followed the messages that it summarizes.

        A first message of the same role would be merged into the last one that was summarized, as a system message is.
        """
        carried, self.carried = self.carried, None
        if carried is None or role in ("system", carried["role"]) or carried["base"] != self.base:
            return
        self.prefixes += tuple(carried["summarized"])

    def _check_block(self, place: PlacedBlock) -> ReturnedThinking:
        self._resolve_carried(place.within)
        seal = read_signature(signature_of(place.block), holding="prefix")
        if seal is not None and seal.get("account", "") != self.account:
            return ReturnedThinking(place, None, None)
        if seal is not None and seal["model"] != self.model:
            return ReturnedThinking(place, seal, MODEL_MISMATCH)
        if seal is not None and self._is_lost(seal):
            return ReturnedThinking(place, seal, PREFIX_MISMATCH)
        self.step(place.within, place.block)
        return ReturnedThinking(place, seal, None)

    def _is_lost(self, seal: dict[str, Any]) -> bool:
        """Tell whether it was thought elsewhere, or its predecessor is missing between others; so is all after it."""
        return seal["prefix"] not in self.prefixes or self.previous not in (None, seal["previous"])


def find_returned_thinking(request: ApiRequest) -> list[ReturnedThinking]:
    """Return the thinking blocks that came back with a request."""
    if "returned" not in request.once:
        found = any(place.type in THINKING for place in request.live_places)
        request.once["returned"] = (
            PrefixWalk.begin(request, request.body["model"]).walk_messages(request) if found else []
        )
    blocks: list[ReturnedThinking] = request.once["returned"]
    return blocks


class ThinkingSigner:
    """What the fake knows of the thinking that it gave out; safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_calls: dict[str, tuple[str, ...]] = {}

    def sign_thinking(self, request: ApiRequest, content: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
        """Return a reply's content with signatures where thinking has none, and remember what its tool calls follow."""
        if not any(block.get("type") in THINKING for block in content):
            return content
        walk = PrefixWalk.through(request, model)
        ready = []
        for block in content:
            ready.append(_sign_block(block, walk))
            walk.step("assistant", ready[-1])
        thought = tuple(signature_of(block) for block in ready if block.get("type") in THINKING)
        with self._lock:
            self._of_calls |= {_call_digest(block): thought for block in ready if block.get("type") == "tool_use"}
        return ready

    def before_call(self, block: dict[str, Any]) -> tuple[str, ...]:
        """Return the signatures of the reply that made this tool call; none if it is not known."""
        with self._lock:
            return self._of_calls.get(_call_digest(block), ())


def _call_digest(block: dict[str, Any]) -> str:
    """Return what tells a call from others: gateways give the same id in every reply."""
    return digest(canonical([block.get("id"), block.get("name"), block.get("input")]))


def _sign_block(block: dict[str, Any], walk: PrefixWalk) -> dict[str, Any]:
    field = _FIELD.get(block.get("type", ""))
    if field is None or block.get(field):
        return block
    text = block.get("thinking", "")
    prefix = walk.prefixes[0]
    facts = {"model": walk.model, "prefix": prefix, "previous": walk.previous, "text": text and digest(text)}
    whose = {"account": walk.account} if walk.account else {}
    return {**block, field: make_signature(facts | whose)}


def base_of(request: ApiRequest) -> str:
    """Return the hash of what stands before the messages: system prompt and tools (deferred ones aside)."""
    system = [place.block for place in request.outer_places if place.message is None]
    tools = [
        tool for tool in request.body.get("tools") or [] if not (isinstance(tool, dict) and tool.get("defer_loading"))
    ]
    return digest(canonical([system, tools]))
