"""Lists all replies to one question, and makes one of them current again.

When a question is asked again, the first reply stays in the log, off the active path. So the log holds a tree of
messages: a message follows the one with which the path ended when it was stored. Rewinds, repairs and snapshots store
the new path, so the path to any message is known from the last of these entries before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chathistory.errors import InvalidInput
from chathistory.log.active_path import clip_ranges, contains_position, iter_ranges_newest_first, load_ranges
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_cut_entry, is_message_entry, select_messages
from chathistory.log.events import MessageAdded, Repair, Rewind, Snapshot
from chathistory.log.field_types import PositionRange
from chathistory.log.state import ConversationHead
from chathistory.log.turn_boundaries import begins_view, opens_turn
from chathistory.messages.content import Message
from chathistory.operations.rewind_forget import NewPath, count_turns, make_rewind_along

__all__ = ["Variant", "list_variants", "make_rewind_to_variant"]

_PORTION = 64


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the replies to a question.

    Attributes:
        position: The position of its last message by Claude, for `Conversation.choose`.
        message: That message.
        entries: All entries that belong to it, in order: tool calls, their results, and the reply.
        is_current: Whether it is on the active path.
    """

    position: int
    message: Message = field(repr=False)
    entries: tuple[Entry, ...] = field(repr=False)
    is_current: bool


def list_variants(log: ConversationLog, position: int) -> list[Variant]:
    """Return all replies to a question, in the order of the log; [] if there are no replies yet.

    Args:
        log: The log of the conversation.
        position: The position of the question, or of any reply to it.

    Raises:
        InvalidInput: There is neither a question nor a reply at this position.
    """
    head = log.refresh()
    question = None
    if head and (entry := _read_entry_at(log, head, position)) and is_message_entry(entry):
        earlier = iter_ranges_newest_first(log, _find_path_to(log, head, position, position), _PORTION)
        messages = (each for each in itertools.chain([entry], earlier) if is_message_entry(each))
        question = next((each.position for each in messages if opens_turn(each.event.message)), None)
    if head is None or question is None:
        raise InvalidInput(
            f"position: must be the position of a question or of a reply to one, and position {position} is neither; "
            "`last_entries` and `chathistory show` give the positions"
        )
    replies = _ReplyTree(question)
    for part in log.read_in_parts(question + 1, head.end):
        for each in log.decode_part(part):
            replies.add(each)
    ranges, variants = load_ranges(log, head, []), []
    for chain in replies.iter_chains():
        last = next(each for each in reversed(chain) if each.event.message["role"] == "assistant")
        is_current = all(contains_position(ranges, each.position) for each in chain)
        variants.append(Variant(last.position, last.event.message, tuple(chain), is_current))
    return variants


class _ReplyTree:
    """A tree of the messages that follow a question on any path, up to the next question; it grows entry by entry."""

    def __init__(self, question: int) -> None:
        self._questions = {question}
        self._entries: dict[int, Entry[MessageAdded]] = {}
        self._parents: dict[int, int] = {}
        self._others: set[int] = set()  # messages that belong to later questions
        self._current: int | None = question  # the message that the next one follows

    def add(self, entry: Entry) -> None:
        """Add the next entry of the log.

        Args:
            entry: The entry; one that is no message may change the path.
        """
        if isinstance(entry.event, Rewind | Snapshot | Repair):
            known = (*self._questions, *self._entries, *self._others)
            last = max((position for position in known if contains_position(entry.event.path, position)), default=None)
            self._current = None if last in self._others else last
        if not is_message_entry(entry):
            return
        position, original = entry.position, entry.event.copy_of  # a repair stores messages again
        if original in self._questions:
            self._questions.add(position)
            self._current = position
        elif original is not None and original in self._entries:
            del self._entries[original]
            self._entries[position], self._parents[position] = entry, self._parents.pop(original)
            self._parents = {each: position if old == original else old for each, old in self._parents.items()}
            self._current = position
        elif self._current is None or opens_turn(entry.event.message):
            self._others.add(position)
            self._current = None
        else:
            self._entries[position], self._parents[position] = entry, self._current
            self._current = position

    def iter_chains(self) -> Iterator[list[Entry[MessageAdded]]]:
        """Yield the messages from the question to each leaf of the tree, if Claude wrote one of them."""
        parents = set(self._parents.values())
        for leaf in sorted(position for position in self._entries if position not in parents):
            chain: list[Entry[MessageAdded]] = []
            position: int | None = leaf
            while position in self._entries:
                chain.insert(0, self._entries[position])
                position = self._parents[position]
            if any(entry.event.message["role"] == "assistant" for entry in chain):
                yield chain


def make_rewind_to_variant(log: ConversationLog, head: ConversationHead, position: int) -> Rewind | None:
    """Return the event that makes the reply at a position current; the conversation then ends with its turn.

    Args:
        log: The log of the conversation.
        head: Its head.
        position: The position of the reply.

    Returns:
        The event; None if the conversation ends with that turn already.

    Raises:
        InvalidInput: There is no reply at this position, or its thinking must be sent and no longer can.
    """
    entry = _read_entry_at(log, head, position)
    if entry is None or not is_message_entry(entry) or entry.event.message["role"] != "assistant":
        raise InvalidInput(
            f"position: must be the position of a reply by Claude, and position {position} is not one; "
            "`variants` lists the replies to a question with their positions"
        )
    end = _find_end_of_turn(log, head, position)
    present, ranges = load_ranges(log, head, []), _find_path_to(log, head, position, end)
    edges = sorted({edge for span in (*present, *ranges) for edge in span})
    # the first position that is on only one of the two paths
    first = next(
        (edge for edge in edges if contains_position(present, edge) != contains_position(ranges, edge)), edges[-1]
    )
    added = _read_entries(log, clip_ranges(ranges, low=first, high=end))
    before = select_messages(_read_entries(log, clip_ranges(present, low=first, high=head.end)))
    after = select_messages(added)
    if not before and not after:
        return None
    is_cut_again = any(is_cut_entry(entry) for entry in added) or any(begins_view(entry.event) for entry in after)
    totals = head.state.totals
    path = NewPath(
        ranges,
        end,
        messages=totals.messages - len(before) + len(after),
        turns=totals.turns - count_turns(before) + count_turns(after),
        keeps_view=head.state.view.view_start <= first and not is_cut_again,
    )
    return make_rewind_along(log, head, path)


def _find_path_to(log: ConversationLog, head: ConversationHead, position: int, end: int) -> list[PositionRange]:
    """Return the ranges of the path that was active when the entry at a position was stored, up to `end`."""
    if head.state.view.path_position is None:
        return [(head.start, end)]
    for stop in range(position + 1, head.start, -_PORTION):
        start = max(head.start, stop - _PORTION)
        for entry in reversed(log.read_entries(start, stop)):
            if isinstance(entry.event, Rewind | Snapshot | Repair):
                return clip_ranges([*entry.event.path, (entry.position, end)], low=head.start, high=end)
    return [(head.start, end)]


def _find_end_of_turn(log: ConversationLog, head: ConversationHead, position: int) -> int:
    """Return the position after the last message of the turn that a reply belongs to."""
    end = position + 1
    for start in range(end, head.end, _PORTION):
        for entry in log.read_entries(start, min(start + _PORTION, head.end)):
            if isinstance(entry.event, Rewind | Snapshot | Repair):
                return end
            if is_message_entry(entry):
                if opens_turn(entry.event.message):
                    return end
                end = entry.position + 1
    return end


def _read_entries(log: ConversationLog, ranges: Sequence[PositionRange]) -> list[Entry]:
    return list(iter_ranges_newest_first(log, ranges, _PORTION))[::-1]


def _read_entry_at(log: ConversationLog, head: ConversationHead, position: int) -> Entry | None:
    """Return the entry at a position; None if none is kept there."""
    if not head.start <= position < head.end:
        return None
    return log.read_entries(position, position + 1)[0]
