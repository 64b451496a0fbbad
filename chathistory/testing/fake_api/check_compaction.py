"""Checks of requests for a summary, and of `compaction` blocks that are sent back.

A block with a signature was made on demand, and is sent first, in place of what it summarizes. A block without was made
at a threshold, and stays where it was returned. A block without content is a failed compaction, and has no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.check_context_editing import ON_DEMAND
from chathistory.testing.fake_api.check_server_tools import pending
from chathistory.testing.fake_api.compaction import COMPACT
from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock
from chathistory.testing.fake_api.signatures import canonical, digest, read_signature

__all__ = [
    "content_mismatch",
    "empty_summary",
    "incomplete_turn",
    "misplaced_block",
    "nothing_to_summarize",
    "several_blocks",
    "signature_invalid",
    "signed_block_with_edit",
    "signed_without_beta",
    "tool_changes_mismatch",
    "without_strategy",
]

Found = Iterator[dict[str, Any]]


def _find_summaries(request: ApiRequest) -> list[PlacedBlock]:
    return [place for place in request.outer_places if place.summarizes]


def _find_signed(request: ApiRequest) -> list[PlacedBlock]:
    return [place for place in _find_summaries(request) if place.is_signed]


def nothing_to_summarize(request: ApiRequest) -> Found:
    """A summary is requested of a conversation without messages of the user or the assistant."""
    if request.compacts and not any(place.within in ("user", "assistant") for place in request.outer_places):
        yield {}


def incomplete_turn(request: ApiRequest) -> Found:
    """A summary is requested while the last turn waits for tool results."""
    if not request.compacts:
        return
    last = request.turns[-1]
    if last.role == "assistant" and (last.of("tool_use") or pending(last)):
        yield {"path": f"messages.{last.last}"}


def empty_summary(request: ApiRequest) -> Found:
    """A block has an empty string as its summary; only null is allowed."""
    for place in request.outer_places:
        if place.type == "compaction" and place.block.get("content") == "":
            yield {"path": place.path}


def signed_without_beta(request: ApiRequest) -> Found:
    """A signed block is sent without its beta header."""
    for place in _find_signed(request):
        if not request.has_beta(ON_DEMAND):
            yield {"path": place.path}


def without_strategy(request: ApiRequest) -> Found:
    """A block without signature is sent without the edit for such blocks and without the other beta."""
    wanted = any(edit["type"] == COMPACT for edit in request.edits)
    if not wanted and not request.has_beta(ON_DEMAND):
        yield from ({} for _ in _find_summaries(request))


def signed_block_with_edit(request: ApiRequest) -> Found:
    """A signed block is sent with an edit that compacts at a threshold."""
    if _find_signed(request) and any(edit["type"] == COMPACT for edit in request.edits):
        yield {}


def several_blocks(request: ApiRequest) -> Found:
    """There are several blocks with a summary, and one of them is signed."""
    if _find_signed(request) and len(_find_summaries(request)) > 1:
        yield {}


def misplaced_block(request: ApiRequest) -> Found:
    """A signed block is not the first of the conversation, or is in a system message."""
    for place in _find_signed(request):
        if place.path != "messages.0.content.0" or place.within == "system":
            yield {}


def signature_invalid(request: ApiRequest) -> Found:
    """A signature is not from this fake, or is missing where one is required."""
    edited = any(edit["type"] == COMPACT for edit in request.edits)
    for place in _find_summaries(request):
        if not edited and _read_facts(place) is None:
            yield {"path": place.path}


def _read_facts(place: PlacedBlock) -> dict[str, Any] | None:
    return read_signature(str(place.block.get("signature") or ""), holding="summarized")


def content_mismatch(request: ApiRequest) -> Found:
    """The summary is not the one that was signed."""
    for place in _find_signed(request):
        if (facts := _read_facts(place)) and facts["content"] != digest(str(place.block["content"])):
            yield {}


def tool_changes_mismatch(request: ApiRequest) -> Found:
    """The `tool_changes` are not those that were signed."""
    for place in _find_signed(request):
        if (facts := _read_facts(place)) and facts["tool_changes"] != digest(
            canonical(place.block.get("tool_changes"))
        ):
            yield {}
