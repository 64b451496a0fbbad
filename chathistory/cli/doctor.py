"""`chathistory doctor`: what cannot be read or sent as it is stored, and the way around it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from chathistory.cli.finding import absent
from chathistory.cli.output import json_option, lines, print_json, progress, table
from chathistory.cli.place import Place, debug_option, place_options
from chathistory.cli.safe import one_line, safe
from chathistory.conversation import Conversation
from chathistory.errors import ChatHistoryError, StoreUnavailable
from chathistory.history import History
from chathistory.store import Key
from chathistory.view import Repair
from chathistory.view.item import ADDED

if TYPE_CHECKING:
    from chathistory.cli.online import Check

__all__ = ["doctor"]

_SOUND, _MENDED, _TO_MEND, _WAITS, _BEYOND = "sound", "mended", "to mend", "waits", "not mended"
_WORDS = {
    _SOUND: "sound",
    _MENDED: "mended",
    _TO_MEND: "to mend (--yes does it)",
    _WAITS: "waiting for results of tools, and left alone",
    _BEYOND: "that could not be mended",
}


@dataclass(frozen=True, slots=True)
class _Case:
    """What was found in a conversation. state: what became of it; error: why it could not be looked at, or mended."""

    key: Key
    state: str
    findings: tuple[Repair, ...] = ()
    error: str | None = None

    @property
    def is_wrong(self) -> bool:
        return self.state in (_TO_MEND, _BEYOND)


@click.command()
@click.argument("id", required=False)
@click.option("--yes", "--write", "yes", is_flag=True, help="Mend it. Without this option it is only shown.")
@click.option(
    "--online", is_flag=True, help="Ask the API as well, by counting tokens: it costs nothing, but needs a key."
)
@json_option
@place_options
@debug_option
def doctor(id: str | None, *, yes: bool, online: bool, place: Place, as_json: bool) -> int:
    r"""Find what is damaged, or cannot be sent as it is stored, and lead around it; of all conversations, or of one.

    Of all scopes, unless --scope (or a setting) names one. Mending only adds records: what cannot be read or sent is
    left out from then on, and nothing is removed. A conversation that waits for the results of tools is left alone,
    unless it is named. A damaged head cannot be mended: restore a copy of the conversation, or delete it. The exit code
    is 1 as long as something is left to mend.

    With --online the API is asked whether it takes the conversation; what it refuses (an image, an expired file,
    thinking of another account) is left out as well.

    When it does not go to a terminal, one line each: id, scope, position, state, what was found, separated by tabs.

    \b
    Examples:
      chathistory doctor
      chathistory doctor thesis --yes
      chathistory doctor thesis --online
    """
    cases = []
    with place.opened() as history, _asking(place, history, online=online) as check, progress("looking", None) as step:
        for case in _looked_at(history, place, id, check, write=yes):
            cases.append(case)
            step(case)
    _print(cases, as_json=as_json)
    _tell(cases)
    return 1 if any(case.is_wrong for case in cases) else 0


def _keys(history: History, place: Place, id: str | None) -> Iterable[Key]:
    if id is not None:
        return [history.key(id, place.scope)]
    return history.store.keys(place.scope if place.chosen else None)


def _asking(place: Place, history: History, *, online: bool) -> AbstractContextManager[Check | None]:
    if not online:
        return nullcontext()
    from chathistory.cli.online import checking  # noqa: PLC0415 - brings the SDK

    return checking(place, history)


def _looked_at(history: History, place: Place, id: str | None, check: Check | None, *, write: bool) -> Iterator[_Case]:
    for key in _keys(history, place, id):
        conversation = history.conversation(key.id, scope=key.scope)
        findings: tuple[Repair, ...] = ()
        try:
            findings = conversation.repair()
            if not findings and id is not None and conversation.refresh() is None:
                raise click.ClickException(safe(absent(place, id)))
            case = _mended(conversation, key, findings, write=write, named=id is not None)
            yield _asked(case, conversation, check, write=write) if check else case
        except StoreUnavailable:
            raise
        except ChatHistoryError as error:
            yield _Case(key, _BEYOND, findings, str(error))


def _asked(case: _Case, conversation: Conversation, check: Check, *, write: bool) -> _Case:
    """Return the case with what the API refuses, unless something else has to be mended first."""
    refused = check(conversation, write) if case.state in (_SOUND, _MENDED) else ()
    if not refused:
        return case
    beyond = any(each.position == ADDED for each in refused)  # it is too large: what to leave out is not ours to say
    state = _BEYOND if beyond else _MENDED if write else _TO_MEND
    return _Case(case.key, state, (*case.findings, *refused))


def _mended(conversation: Conversation, key: Key, findings: tuple[Repair, ...], *, write: bool, named: bool) -> _Case:
    if not findings:
        return _Case(key, _SOUND)
    if not named and any(each.position == ADDED for each in findings):
        return _Case(key, _WAITS, findings)
    if not write:
        return _Case(key, _TO_MEND, findings)
    return _Case(key, _MENDED, conversation.repair(write=True))


def _print(cases: Sequence[_Case], *, as_json: bool) -> None:
    told = [case for case in cases if case.state != _SOUND]
    if as_json:
        for case in told:
            print_json({"id": case.key.id, "scope": case.key.scope, **_plain(case)})
    elif not sys.stdout.isatty():
        lines("\t".join(row) for case in told for row in _rows(case, scope=True))
    elif told:
        scoped = len({case.key.scope for case in cases}) > 1
        table(("ID", "SCOPE", "RECORD", "STATE", "FOUND"), [row for case in told for row in _rows(case, scope=scoped)])


def _plain(case: _Case) -> dict[str, Any]:
    return {"state": case.state, "error": case.error, "findings": [asdict(each) for each in case.findings]}


def _rows(case: _Case, *, scope: bool) -> Iterator[tuple[str, ...]]:
    """Yield a row for each finding, and one for the error; a position that is none is the end."""
    named = (one_line(case.key.id), one_line(case.key.scope) if scope else "")
    for each in case.findings:
        yield (*named, "end" if each.position == ADDED else str(each.position), case.state, one_line(each.what))
    if case.error:
        yield (*named, "", case.state, one_line(case.error))


def _tell(cases: Sequence[_Case]) -> None:
    counts = Counter(case.state for case in cases)
    told = ", ".join(f"{counts[state]} {words}" for state, words in _WORDS.items() if counts[state])
    click.echo(f"{len(cases)} conversations looked at" + (f": {told}" if told else ""), err=True)
