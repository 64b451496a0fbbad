"""The replies to one question: which there are in the log, and going back to one of them.

Going back to a question and asking it again leaves the first reply in the log, off the path that the view goes through.
The log thus holds a tree of messages: what follows a message, at each time, is what was stored while the path ended
with it. A rewind and its like write the path down, so the path to any message is known from the last of them before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chathistory.errors import InvalidInput
from chathistory.log.active_path import clip_spans, covers, iter_spans_newest_first, load_spans
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_cut_entry, is_message_entry, messages_among
from chathistory.log.events import MessageAdded, Repair, Rewind, Snapshot
from chathistory.log.field_types import Span
from chathistory.log.state import ConversationHead
from chathistory.log.turn_boundaries import begins_view, opens_turn
from chathistory.messages.content import Message
from chathistory.operations.rewind import NewPath, count_turns, make_rewind_along

__all__ = ["Variant", "list_variants", "make_rewind_to_variant"]

_PORTION = 64


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the replies to a question.

    Attributes:
        position: Of its last message by Claude; `Conversation.choose` takes it.
        message: That message.
        entries: All that belongs to it, in order: calls of tools, their results, and the reply.
        is_current: Whether the conversation goes through it now.
    """

    position: int
    message: Message = field(repr=False)
    entries: tuple[Entry, ...] = field(repr=False)
    is_current: bool


def list_variants(log: ConversationLog, position: int) -> list[Variant]:
    """Return the replies to the question at a position, or to the question that the reply at a position answers.

    They come in the order of the log; [] if there is no reply yet.

    Raises:
        InvalidInput: No such message is at this position.
    """
    head = log.refresh()
    question = None
    if head and (entry := _read_entry_at(log, head, position)) and is_message_entry(entry):
        earlier = iter_spans_newest_first(log, _find_path_to(log, head, position, position), _PORTION)
        asked = (each for each in itertools.chain([entry], earlier) if is_message_entry(each))
        question = next((each.position for each in asked if opens_turn(each.event.message)), None)
    if head is None or question is None:
        raise InvalidInput(f"position {position} holds neither a question of this conversation nor a reply to one")
    replies = _ReplyTree(question)
    for part in log.slices(question + 1, head.end):
        for each in log.entries(part):
            replies.add(each)
    spans, variants = load_spans(log, head, []), []
    for chain in replies.iter_chains():
        last = next(each for each in reversed(chain) if each.event.message["role"] == "assistant")
        is_current = all(covers(spans, each.position) for each in chain)
        variants.append(Variant(last.position, last.event.message, tuple(chain), is_current))
    return variants


class _ReplyTree:
    """The messages that follow a question in any way, up to the next question, as a tree that grows with the log."""

    def __init__(self, question: int) -> None:
        self._questions = {question}
        self._entries: dict[int, Entry[MessageAdded]] = {}
        self._parents: dict[int, int] = {}
        self._others: set[int] = set()  # messages that belong to later questions
        self._current: int | None = question

    def add(self, entry: Entry) -> None:
        """Take the next entry of the log."""
        if isinstance(entry.event, Rewind | Snapshot | Repair):
            seen = (*self._questions, *self._entries, *self._others)
            last = max((place for place in seen if covers(entry.event.path, place)), default=None)
            self._current = None if last in self._others else last
        if not is_message_entry(entry):
            return
        place, again = entry.position, entry.event.copy_of  # a repair stores messages anew
        if again in self._questions:
            self._questions.add(place)
            self._current = place
        elif again is not None and again in self._entries:
            del self._entries[again]
            self._entries[place], self._parents[place] = entry, self._parents.pop(again)
            self._parents = {each: place if old == again else old for each, old in self._parents.items()}
            self._current = place
        elif self._current is None or opens_turn(entry.event.message):
            self._others.add(place)
            self._current = None
        else:
            self._entries[place], self._parents[place] = entry, self._current
            self._current = place

    def iter_chains(self) -> Iterator[list[Entry[MessageAdded]]]:
        """Yield each way from the question to a last message, if Claude said something on it."""
        parents = set(self._parents.values())
        for leaf in sorted(place for place in self._entries if place not in parents):
            chain: list[Entry[MessageAdded]] = []
            place: int | None = leaf
            while place in self._entries:
                chain.insert(0, self._entries[place])
                place = self._parents[place]
            if any(entry.event.message["role"] == "assistant" for entry in chain):
                yield chain


def make_rewind_to_variant(log: ConversationLog, head: ConversationHead, position: int) -> Rewind | None:
    """Return the event after which the view goes through the reply at a position, and ends with its turn.

    Returns:
        None if that is what the view does already.

    Raises:
        InvalidInput: No reply is at this position, or its thinking can no longer be sent, and has to be.
    """
    entry = _read_entry_at(log, head, position)
    if entry is None or not is_message_entry(entry) or entry.event.message["role"] != "assistant":
        raise InvalidInput(f"position {position} holds no reply of this conversation")
    end = _find_end_of_turn(log, head, position)
    present, spans = load_spans(log, head, []), _find_path_to(log, head, position, end)
    edges = sorted({edge for span in (*present, *spans) for edge in span})
    # the first position that only one of the two paths goes through
    first = next((edge for edge in edges if covers(present, edge) != covers(spans, edge)), edges[-1])
    added = _read_entries(log, clip_spans(spans, low=first, high=end))
    before = messages_among(_read_entries(log, clip_spans(present, low=first, high=head.end)))
    after = messages_among(added)
    if not before and not after:
        return None
    is_cut_anew = any(is_cut_entry(entry) for entry in added) or any(begins_view(entry.event) for entry in after)
    totals = head.state.totals
    path = NewPath(
        spans,
        end,
        messages=totals.messages - len(before) + len(after),
        turns=totals.turns - count_turns(before) + count_turns(after),
        keeps_view=head.state.view.view_start <= first and not is_cut_anew,
    )
    return make_rewind_along(log, head, path)


def _find_path_to(log: ConversationLog, head: ConversationHead, position: int, end: int) -> list[Span]:
    """Return the spans that the view went through when the entry at a position was stored, up to `end`."""
    if head.state.view.path is None:
        return [(head.start, end)]
    for stop in range(position + 1, head.start, -_PORTION):
        start = max(head.start, stop - _PORTION)
        for entry in reversed(log.read(start, stop)):
            if isinstance(entry.event, Rewind | Snapshot | Repair):
                return clip_spans([*entry.event.path, (entry.position, end)], low=head.start, high=end)
    return [(head.start, end)]


def _find_end_of_turn(log: ConversationLog, head: ConversationHead, position: int) -> int:
    """Return the position behind the last message of the turn of a reply, as it went on after that."""
    end = position + 1
    for start in range(end, head.end, _PORTION):
        for entry in log.read(start, min(start + _PORTION, head.end)):
            if isinstance(entry.event, Rewind | Snapshot | Repair):
                return end
            if is_message_entry(entry):
                if opens_turn(entry.event.message):
                    return end
                end = entry.position + 1
    return end


def _read_entries(log: ConversationLog, spans: Sequence[Span]) -> list[Entry]:
    return list(iter_spans_newest_first(log, spans, _PORTION))[::-1]


def _read_entry_at(log: ConversationLog, head: ConversationHead, position: int) -> Entry | None:
    """Return the entry at a position; None: none is kept there."""
    if not head.start <= position < head.end:
        return None
    return log.read(position, position + 1)[0]
