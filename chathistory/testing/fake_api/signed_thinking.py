"""Thinking and its signatures: each block is bound to its conversation.

A signature contains four facts: the model, a hash of everything before the block (system prompt, tools, messages,
earlier blocks of the reply; without cache markers and thinking), the signature before it, and a hash of its text. When
the block is sent back, the fake sees whether its text was changed, whether anything before it was, and whether a
thinking block between it and its predecessor is missing. Thinking may be missing from the start: the first block need
not name its predecessor. Thinking of other models is not checked: it would be dropped.

A compaction replaces what is before it, and may preserve its hash. Then two hashes are valid for what follows: that of
the summarized conversation, for thinking older than the compaction, and the one that begins with the summary. A
`PrefixWalk` through a request knows both.
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
    """A thinking block that was sent back.

    Attributes:
        place: The block.
        facts: The facts of its signature, or None if the signature is not from this fake.
        dropped: The API's reason for not showing it to the model, or None.
    """

    place: PlacedBlock
    facts: dict[str, Any] | None
    dropped: str | None

    @property
    def is_tampered(self) -> bool:
        """Whether the signature is not from this fake, or the text was changed (not if empty thinking got a text)."""
        if self.facts is None:
            return bool(self.place.type == "thinking")
        return self.facts["text"] not in ("", digest(self.place.block.get("thinking", "")))


def signature_of(block: dict[str, Any]) -> str:
    """Return the signature of a thinking block; for a redacted one, its data."""
    return str(block[_FIELD[block["type"]]])


@dataclass(slots=True)
class PrefixWalk:
    """A walk through a conversation, with the hashes of what it has passed.

    Attributes:
        model: The model of the request.
        base: Hash of the system prompt and tools.
        prefixes: Hashes of everything so far but thinking. New thinking is bound to the first one; others come from
            compactions.
        previous: Hash of the last signature, or None.
        carried: Facts of a compaction that may add a prefix, or None.
        account: The account of the request.
    """

    model: str
    base: str
    prefixes: tuple[str, ...]
    previous: str | None = None
    carried: dict[str, Any] | None = None
    account: str = ""

    @classmethod
    def through(cls, request: ApiRequest, model: str) -> PrefixWalk:
        """Return a walk at the end of a request."""
        walk = cls.begin(request, model)
        walk.walk_messages(request)
        return walk

    @classmethod
    def begin(cls, request: ApiRequest, model: str) -> PrefixWalk:
        """Return a walk between the system prompt and the messages."""
        base = base_of(request)
        return cls(model, base, (base,), account=request.setting.account)

    def walk_messages(self, request: ApiRequest) -> list[ReturnedThinking]:
        """Walk through the messages, and return their thinking blocks."""
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
        """Restart from a summary; a block without content changes nothing."""
        if not block.get("content"):
            return
        self.prefixes = (
            digest(self.base + str(block["content"])),
        )  # the content only, since the SDK adds a null to streamed blocks
        self.previous = None
        self.carried = read_signature(str(block.get("signature")), holding="summarized")

    def _resolve_carried(self, role: str) -> None:
        """Add the prefix of a compaction if the messages after it directly follow the summarized ones.

        A first message of the same role would be merged into the last summarized one, and so would a system message.
        """
        carried, self.carried = self.carried, None
        if carried is None or role in ("system", carried["role"]) or carried["base"] != self.base:
            return
        self.prefixes += tuple(carried["summarized"])

    def _check_block(self, place: PlacedBlock) -> ReturnedThinking:
        self._resolve_carried(place.within)
        facts = read_signature(signature_of(place.block), holding="prefix")
        if facts is not None and facts.get("account", "") != self.account:
            return ReturnedThinking(place, None, None)
        if facts is not None and facts["model"] != self.model:
            return ReturnedThinking(place, facts, MODEL_MISMATCH)
        if facts is not None and self._is_lost(facts):
            return ReturnedThinking(place, facts, PREFIX_MISMATCH)
        self.step(place.within, place.block)
        return ReturnedThinking(place, facts, None)

    def _is_lost(self, facts: dict[str, Any]) -> bool:
        """Return True if it belongs to another conversation, or a thinking block before it is missing."""
        return facts["prefix"] not in self.prefixes or self.previous not in (None, facts["previous"])


def find_returned_thinking(request: ApiRequest) -> list[ReturnedThinking]:
    """Return the thinking blocks of a request."""
    if "returned" not in request.once:
        found = any(place.type in THINKING for place in request.live_places)
        request.once["returned"] = (
            PrefixWalk.begin(request, request.body["model"]).walk_messages(request) if found else []
        )
    blocks: list[ReturnedThinking] = request.once["returned"]
    return blocks


class ThinkingSigner:
    """Signs thinking, and remembers which thinking preceded each tool call; safe to use in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_calls: dict[str, tuple[str, ...]] = {}

    def sign_thinking(self, request: ApiRequest, content: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
        """Sign the thinking of a reply, and remember which thinking precedes its tool calls.

        Args:
            request: The request that the reply answers.
            content: The content of the reply.
            model: The model of the reply.

        Returns:
            The content; thinking blocks without a signature have one.
        """
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
        """Return the signatures of the reply that made a tool call, or an empty tuple if it is unknown."""
        with self._lock:
            return self._of_calls.get(_call_digest(block), ())


def _call_digest(block: dict[str, Any]) -> str:
    """Return a hash that identifies a call; the id alone does not, since gateways repeat ids."""
    return digest(canonical([block.get("id"), block.get("name"), block.get("input")]))


def _sign_block(block: dict[str, Any], walk: PrefixWalk) -> dict[str, Any]:
    field = _FIELD.get(block.get("type", ""))
    if field is None or block.get(field):
        return block
    text = block.get("thinking", "")
    prefix = walk.prefixes[0]
    facts = {"model": walk.model, "prefix": prefix, "previous": walk.previous, "text": text and digest(text)}
    account = {"account": walk.account} if walk.account else {}
    return {**block, field: make_signature(facts | account)}


def base_of(request: ApiRequest) -> str:
    """Return the hash of the system prompt and the tools (without deferred ones)."""
    system = [place.block for place in request.outer_places if place.message is None]
    tools = [
        tool for tool in request.body.get("tools") or [] if not (isinstance(tool, dict) and tool.get("defer_loading"))
    ]
    return digest(canonical([system, tools]))
