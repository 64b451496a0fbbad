"""From a policy to a cut: when there may be one, where, and the record that says so.

There is no cut while something is open: a tool call that awaits its result, a reply that paused. The API wants the
thinking of the last turn back then, unchanged, and a cut changes what that thinking is bound to.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from chathistory.errors import IncompleteReply, InvalidInput
from chathistory.log.active_path import ActiveEntries
from chathistory.log.clock import now
from chathistory.log.entry import Entry
from chathistory.log.message_entries import message_entry
from chathistory.log.message_sizes import estimated
from chathistory.log.reducers import open_reply, opens_turn
from chathistory.log.state import Summary
from chathistory.messages.content import Message, blocks_of
from chathistory.trimming.policies import Compaction, Load, Policy
from chathistory.trimming.turns import SentTurn, outlined
from chathistory.view import view_of
from chathistory.view.tool_call_ids import doubled_calls

__all__ = ["Plan", "TrimResult", "is_callers", "is_due", "may_be_hidden", "planned", "planned_whole"]

_FRESH = re.compile("[0-9a-f]{28}")  # a turn id that was not the caller's
_MARK = 8  # characters that are kept of a turn id


@dataclass(frozen=True, slots=True)
class TrimResult:
    """What a cut leaves out: turns and messages, and the tokens sent before and after it (about; see `Load`).

    position: from which on messages are sent.
    """

    position: int
    turns: int
    messages: int
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A cut that a policy asks for. opening: what opens the turn within which it falls, None: it falls between turns.

    data: what its record says.
    """

    policy: Policy
    trimmed: TrimResult
    opening: Message | None
    data: dict[str, Any]

    @property
    def new(self) -> int:
        """The tokens of the message that opens the turn for which it was planned; 0: it was planned for none."""
        return self.trimmed.tokens_after - int(self.data["tokens"])

    def entry(self, summary: str | None = None) -> Entry:
        """Return the record of the cut; summary: a text that stands for what it leaves out."""
        lead = self.opening
        if summary is not None:
            words = [{"type": "text", "text": f"What was said before, in summary:\n\n{summary}"}]
            lead = {"role": "user", "content": [*words, *(blocks_of(self.opening) if self.opening else ())]}
        tokens = self.data["tokens"] + (estimated(lead) if summary is not None and lead else 0)
        return Entry("cut", message=lead, data=self.data | {"tokens": tokens})

    def compaction(self, response: Any) -> Entry:
        """Return the record of the cut whose message is the API's own, which stands for what it leaves out.

        Raises `IncompleteReply` if the API answered without a summary, as it does where it cannot make one.
        """
        found = message_entry(response, kind="compaction")
        if not any(block["type"] == "compaction" and block.get("content") for block in blocks_of(found.message or {})):
            raise IncompleteReply("the API answered without a summary")
        tokens = self.data["tokens"] + estimated(found.message or {})
        return replace(found, data=found.data | self.data | {"tokens": tokens})

    def left_out(self, sent: ActiveEntries) -> ActiveEntries:
        """Return the part of what is sent that the cut leaves out."""
        return _before(sent, self.trimmed.position)


def is_due(policy: Policy, summary: Summary, new: Message | None = None) -> bool:
    """Whether the policy wants a cut, by what is known without reading; new: the message that is about to be sent."""
    return policy.is_due(_load(summary, new))


def _load(summary: Summary, new: Message | None) -> Load:
    tokens = summary.context + (estimated(new) if new else 0)
    return Load(tokens, summary.turns - summary.hidden + (new is not None), summary.since, now())


def planned(policy: Policy, sent: ActiveEntries, new: Message | None = None) -> Plan | None:
    """Return the cut that the policy asks for; None: none is due, or none is possible.

    new: the message that is about to be sent, which opens a turn. Raises `InvalidInput` if the policy names a position
    at which there can be no cut, and what the policy raises.
    """
    load = _load(sent.summary, new)
    if not policy.is_due(load) or open_reply(reversed(sent.entries)) or (new and not opens_turn(new)):
        return None
    scene = _scene(sent, load, new)
    place = policy.start(scene.turns, scene.load) if scene.turns else None
    place = scene.moved(place)
    if place is not None and isinstance(policy, Compaction):
        place = _behind_a_reply(scene, place)
    if place is None or place <= max(scene.turns[0].position, sent.summary.begin):
        return None
    return Plan(policy, *scene.cut(place))


@dataclass(frozen=True, slots=True)
class _CutCandidates:
    """What a policy decides on: what is sent, its turns (the last is that of `new`, if given), and how much it is."""

    sent: ActiveEntries
    messages: list[Entry]
    turns: list[SentTurn]
    load: Load
    new: Message | None

    def moved(self, place: int | None) -> int | None:
        """Return the place, or that of its turn if it is before the first reply: nothing is left out between them."""
        firsts = {turn.rounds[0].position: turn.position for turn in self.turns if turn.rounds}
        return place if place is None else firsts.get(place, place)

    def cut(self, place: int) -> tuple[TrimResult, Message | None, dict[str, Any]]:
        """Return what a cut at a place leaves out, what opens the turn that it falls into, and its record's data.

        Raises `InvalidInput` if neither a turn nor a round begins there.
        """
        split = next((turn for turn in self.turns if any(each.position == place for each in turn.rounds)), None)
        if split is None and not any(turn.position == place for turn in self.turns):
            raise InvalidInput(f"the policy names position {place}, at which neither a turn nor a round begins")
        left = [turn for turn in self.turns if turn.position >= place]
        size = self.load.before + sum(turn.tokens for turn in left)
        if split:
            size += split.opening + sum(each.tokens for each in split.rounds if each.position >= place)
            left.insert(0, split)
        gone = [entry for entry in self.messages if entry.position < place]
        new = estimated(self.new) if self.new else 0
        data = {
            "from": place,
            "hidden": self.sent.summary.turns - len(left) + (self.new is not None),
            "since": left[0].at,
            "tokens": size - new,
            "before": self.load.before,
        }
        marks, renamed = _marks(self.sent, gone), _renamed(self.sent, place)
        trimmed = TrimResult(place, data["hidden"] - self.sent.summary.hidden, len(gone), self.load.tokens, size)
        more = ({} if marks == "" else {"turns": marks}) | ({"renamed": renamed} if renamed else {})
        return trimmed, self._opening(split) if split else None, data | more

    def _opening(self, turn: SentTurn) -> Message | None:
        return next(entry.message for entry in _with_lead(self.sent) if entry.position == turn.position)


def _scene(sent: ActiveEntries, load: Load, new: Message | None) -> _CutCandidates:
    turns, before = outlined(_with_lead(sent), prefix=sent.summary.prefix)
    if before is None:
        before = sent.cut.data["before"] if sent.cut else 0
    if new:
        turns.append(SentTurn(sent.head.end, load.now, estimated(new), estimated(new)))
    messages = [entry for entry in sent.entries if entry.kind == "message"]
    return _CutCandidates(sent, messages, turns, replace(load, before=before), new)


@dataclass(frozen=True, slots=True)
class _Whole:
    """All that was said so far is cut off."""

    def is_due(self, load: Load) -> bool:
        return load.turns > 1

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:  # noqa: ARG002
        return turns[-1].position


def planned_whole(sent: ActiveEntries) -> Plan | None:
    """Return the cut before which everything is left to a compaction by the API; None: there is nothing to compact."""
    return planned(Compaction(_Whole()), sent, {"role": "user", "content": ""})


def _with_lead(sent: ActiveEntries) -> list[Entry]:
    """Return the entries behind what a cut put before them, which opens their first turn."""
    if not (sent.cut and sent.cut.message):
        return sent.entries
    return [replace(sent.cut, kind="message", position=sent.summary.begin - 1), *sent.entries]


def _behind_a_reply(scene: _CutCandidates, place: int) -> int | None:
    """Return the place, moved to the next turn before which nothing is left open: the API sums up to there.

    What it is shown has to be what was sent, message for message: it signs for that, and binds thinking to it.
    """
    sent = scene.sent
    spoken = Entry("message", message={"role": "user", "content": "."}, position=sent.head.end)
    whole = view_of(replace(sent, entries=[*sent.entries, spoken])).messages
    for turn in scene.turns:
        if turn.position >= place:
            shown = view_of(_before(sent, turn.position)).messages
            if shown and shown[-1]["role"] == "assistant" and whole[: len(shown)] == shown:
                return turn.position
    return None


def _before(sent: ActiveEntries, position: int) -> ActiveEntries:
    """Return the part of what is sent that stands before a position."""
    return replace(sent, entries=[entry for entry in sent.entries if entry.position < position])


def _renamed(sent: ActiveEntries, place: int) -> list[str]:
    """Return the calls from `place` on whose id came before: they stay renamed when what came before is not sent."""
    marks = doubled_calls(sent.entries, sent.summary.renamed)
    return [mark for mark in marks if int(mark.partition(".")[0]) >= place]


def _marks(sent: ActiveEntries, messages: Sequence[Entry]) -> str | None:
    """Return marks of all turn ids of callers that are not sent any more: one that comes again is to be found.

    None: it is not known which those are.
    """
    ids = dict.fromkeys(entry.turn for entry in messages if entry.turn and is_callers(entry.turn))
    before = _known_marks(sent) if sent.summary.begin else ""
    return None if before is None else before + "".join(map(_mark, ids))


def _known_marks(sent: ActiveEntries) -> str | None:
    """Return the marks that the cut has; None: the API itself summed up, or the cut is damaged or forgotten."""
    return sent.cut.data.get("turns", "") if sent.cut else None


def _mark(turn: str) -> str:
    return f"{zlib.crc32(turn.encode('utf-8', 'surrogatepass')):08x}"


def is_callers(turn: str) -> bool:
    """Whether a turn id is one that a caller gave, so that it may come again."""
    return not _FRESH.fullmatch(turn)


def may_be_hidden(sent: ActiveEntries, turn: str) -> bool:
    """Whether a turn of this id may stand before what is sent; False is certain."""
    if not sent.summary.begin or not is_callers(turn):
        return False
    marks = _known_marks(sent)
    return marks is None or _mark(turn) in {marks[at : at + _MARK] for at in range(0, len(marks), _MARK)}
