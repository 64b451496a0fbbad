"""What is wrong with a request for a summary, and with `compaction` blocks that come back.

A block with a signature was made on demand, and goes first in the place of what it summarizes. One without was made at
a threshold, and stands where it was given. A block without content is a compaction that failed, and means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.check_context import ON_DEMAND
from chathistory.testing.fake_api.check_server_tools import pending
from chathistory.testing.fake_api.compaction import COMPACT
from chathistory.testing.fake_api.request import Place, Request
from chathistory.testing.fake_api.signatures import canonical, digest, opened

__all__ = [
    "ambiguous",
    "beside_edit",
    "content_mismatch",
    "empty_summary",
    "incomplete_turn",
    "misplaced",
    "nothing_to_summarize",
    "signature_invalid",
    "signed_without_beta",
    "tool_changes_mismatch",
    "without_strategy",
]

Found = Iterator[dict[str, Any]]


def _summaries(request: Request) -> list[Place]:
    return [place for place in request.outer_places if place.summarizes]


def _signed(request: Request) -> list[Place]:
    return [place for place in _summaries(request) if place.is_signed]


def nothing_to_summarize(request: Request) -> Found:
    """A summary is wanted of a conversation in which nobody said anything."""
    if request.compacts and not any(place.within in ("user", "assistant") for place in request.outer_places):
        yield {}


def incomplete_turn(request: Request) -> Found:
    """A summary is wanted, and the last turn waits for the results of its tools."""
    if not request.compacts:
        return
    last = request.turns[-1]
    if last.role == "assistant" and (last.of("tool_use") or pending(last)):
        yield {"path": f"messages.{last.last}"}


def empty_summary(request: Request) -> Found:
    """A block has an empty text for a summary; only null is allowed."""
    for place in request.outer_places:
        if place.type == "compaction" and place.block.get("content") == "":
            yield {"path": place.path}


def signed_without_beta(request: Request) -> Found:
    """A signed block comes back without the beta that it was made under."""
    for place in _signed(request):
        if not request.has_beta(ON_DEMAND):
            yield {"path": place.path}


def without_strategy(request: Request) -> Found:
    """A block without signature comes back, and neither the edit for such blocks is there, nor the other beta."""
    wanted = any(edit["type"] == COMPACT for edit in request.edits)
    if not wanted and not request.has_beta(ON_DEMAND):
        yield from ({} for _ in _summaries(request))


def beside_edit(request: Request) -> Found:
    """A signed block is there, and an edit that would compact at a threshold."""
    if _signed(request) and any(edit["type"] == COMPACT for edit in request.edits):
        yield {}


def ambiguous(request: Request) -> Found:
    """There is more than one block with a summary, and one of them is signed."""
    if _signed(request) and len(_summaries(request)) > 1:
        yield {}


def misplaced(request: Request) -> Found:
    """A signed block is not the first of the conversation, or stands in a system message."""
    for place in _signed(request):
        if place.path != "messages.0.content.0" or place.within == "system":
            yield {}


def signature_invalid(request: Request) -> Found:
    """A signature is not ours; or it is missing, where blocks are only taken with one."""
    edited = any(edit["type"] == COMPACT for edit in request.edits)
    for place in _summaries(request):
        if not edited and _seal(place) is None:
            yield {"path": place.path}


def _seal(place: Place) -> dict[str, Any] | None:
    return opened(str(place.block.get("signature") or ""), holding="summarized")


def content_mismatch(request: Request) -> Found:
    """The summary is not the one that was signed."""
    for place in _signed(request):
        if (seal := _seal(place)) and seal["content"] != digest(str(place.block["content"])):
            yield {}


def tool_changes_mismatch(request: Request) -> Found:
    """The `tool_changes` are not those that were signed."""
    for place in _signed(request):
        if (seal := _seal(place)) and seal["tool_changes"] != digest(canonical(place.block.get("tool_changes"))):
            yield {}
