"""`chathistory doctor`: what cannot be read or sent as it is stored, and the way around it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from chathistory.cli.escape import one_line, safe
from chathistory.cli.lookup import absent
from chathistory.cli.output import json_option, lines, print_json, progress, table
from chathistory.cli.target import Place, debug_option, place_options
from chathistory.conversation import Conversation
from chathistory.errors import ChatHistoryError, StoreUnavailable
from chathistory.history import History
from chathistory.log.conversation_log import ConversationLog
from chathistory.operations.check import Diagnosis, Walk, mend
from chathistory.view import ViewRepair
from chathistory.view.item import ADDED

if TYPE_CHECKING:
    from chathistory.cli.doctor_online import Check

__all__ = ["doctor"]

_MENDED = 4
"""The exit code where something was found, and all of it is mended now."""

_WORDS = {
    "sound": "sound",
    "mended": "mended",
    "to mend": "to mend (--yes does it)",
    "waits": "waiting for results of tools, and left alone",
    "not mended": "that could not be mended",
}
_NEXT = {
    "lost": "nothing of it can be read here: restore a copy of it, or remove it with `chathistory delete` or `erase`",
    "unsupported": "update chathistory on this machine",
    "changing": "run this again when nobody writes to it",
    "repairable": "the rest stays readable",
    "waiting": "hand the results in, or name it to have errors stored in their place",
    "restorable": "its records are folded into a new head",
    "sound": "nothing to do; export it with --salvage",
}


@dataclass(frozen=True, slots=True)
class _Case:
    """What was found in a conversation, what became of it, and what kept it from being mended."""

    diagnosis: Diagnosis
    state: str
    findings: tuple[ViewRepair, ...] = ()
    error: str | None = None

    @property
    def is_told(self) -> bool:
        return self.state != "sound" or bool(self.findings)

    @property
    def next_step(self) -> str:
        if self.state == "to mend":
            return "add --yes to mend it"
        if self.state == "mended":
            return "nothing more to do"
        if self.state == "not mended" and self.diagnosis.state in ("repairable", "waiting", "restorable"):
            return "try again later; --force mends it even while a turn is open"
        return _NEXT[self.diagnosis.state]


@click.command()
@click.argument("id", required=False)
@click.option("--yes", "--write", "yes", is_flag=True, help="Mend it. Without this option it is only shown.")
@click.option("--force", is_flag=True, help="Mend a conversation even while a turn of it is open.")
@click.option(
    "--online", is_flag=True, help="Ask the API as well, by counting tokens: it costs nothing, but needs a key."
)
@json_option
@place_options
@debug_option
def doctor(id: str | None, *, yes: bool, force: bool, online: bool, place: Place, as_json: bool) -> int:
    r"""Find what is damaged, or cannot be sent as it is stored, and lead around it; of all conversations, or of one.

    Of all scopes, unless --scope (or a setting) names one. What is there is found in the storage itself. Mending
    removes no record that can be read: what cannot be read or sent is left out from then on, and a damaged head is made
    anew from the records. With --yes, standard error names what is left out before it is done. A conversation that
    waits for the results of tools is left alone, unless it is named.

    With --online the API is asked whether it takes the conversation; what it refuses (an image, an expired file,
    thinking of another account) is left out as well.

    When it does not go to a terminal, one line each: id, scope, position, state, what was found, the next step,
    separated by tabs. The exit code is 0 if there was nothing to do, 4 if all that was found is mended, and 1 as long
    as something is not.

    \b
    Examples:
      chathistory doctor
      chathistory doctor thesis --yes
      chathistory doctor thesis --online
    """
    counts: Counter[str] = Counter()
    cases, scopes = [], set()
    notes: list[str] = []
    scope = place.scope if id is not None or place.chosen else None
    with place.opened() as history, _asking(place, history, online=online) as ask, progress("looking", None) as step:
        walk = Walk(history.store, scope, None if id is None else [id])
        for diagnosis in walk.diagnoses():
            case = _treat(history, diagnosis, write=yes, force=force, named=id is not None)
            if ask and diagnosis.key:
                case = _ask(case, history.conversation(diagnosis.key.id, scope=diagnosis.key.scope), ask, write=yes)
            counts[case.state] += 1
            scopes.add(diagnosis.key.scope if diagnosis.key else None)
            notes += (f"note: {one_line(note)}" for note in diagnosis.notes)
            if case.is_told:
                cases.append(case)
            step(case)
    if id is not None and not counts:
        raise click.ClickException(safe(absent(place, id)))
    _print(cases, as_json=as_json, scoped=len(scopes) > 1)
    for note in notes:
        click.echo(note, err=True)
    _tell(counts)
    if not walk.is_complete:
        click.echo("some conversations may have been missed: this account may not look through the storage", err=True)
    if counts["to mend"] or counts["not mended"] or not walk.is_complete:
        return 1
    return _MENDED if counts["mended"] else 0


def _asking(place: Place, history: History, *, online: bool) -> AbstractContextManager[Check | None]:
    if not online:
        return nullcontext()
    from chathistory.cli.doctor_online import checking  # noqa: PLC0415 - brings the SDK

    return checking(place, history)


def _ask(case: _Case, conversation: Conversation, ask: Check, *, write: bool) -> _Case:
    """Return the case with what the API refuses, unless something else has to be mended first."""
    if case.state not in ("sound", "mended"):
        return case
    try:
        refused = ask(conversation, write)
    except StoreUnavailable:
        raise
    except ChatHistoryError as error:
        return _Case(case.diagnosis, "not mended", case.findings, str(error))
    if not refused:
        return case
    beyond = any(each.position == ADDED for each in refused)  # it is too large: what to leave out is not ours to say
    state = "not mended" if beyond else "mended" if write else "to mend"
    return _Case(case.diagnosis, state, (*(case.findings if case.state == "mended" else ()), *refused))


def _treat(history: History, diagnosis: Diagnosis, *, write: bool, force: bool, named: bool) -> _Case:
    """Mend what can be mended, if that is asked for."""
    findings = diagnosis.findings
    problem = None if diagnosis.problem is None else str(diagnosis.problem)
    if diagnosis.state == "sound":
        return _Case(diagnosis, "sound", diagnosis.left_out)
    if diagnosis.state == "waiting" and not named:
        return _Case(diagnosis, "waits", findings)
    if diagnosis.key is None or diagnosis.state in ("lost", "unsupported", "changing"):
        return _Case(diagnosis, "not mended", findings, problem)
    if not write:
        return _Case(diagnosis, "to mend", findings, problem)
    _announce(diagnosis)
    try:
        done = mend(ConversationLog(history.store, diagnosis.key), diagnosis, force=force)
    except StoreUnavailable:
        raise
    except ChatHistoryError as error:
        return _Case(diagnosis, "not mended", findings, str(error))
    return _Case(diagnosis, "mended", done, problem)


def _announce(diagnosis: Diagnosis) -> None:
    """Say what is about to be left out, before anything is done."""
    name = one_line(diagnosis.where)
    if diagnosis.problem is not None:
        click.echo(f"{name}: {one_line(str(diagnosis.problem))}", err=True)
    for each in diagnosis.findings:
        click.echo(f"{name}: {_place(each)}: {one_line(each.what)}", err=True)
    sys.stderr.flush()


def _place(finding: ViewRepair) -> str:
    return "end" if finding.position == ADDED else f"record {finding.position}"


def _print(cases: Sequence[_Case], *, as_json: bool, scoped: bool) -> None:
    if as_json:
        for case in cases:
            print_json(_plain(case))
    elif not sys.stdout.isatty():
        lines("\t".join(row) for row in _rows(cases))
    elif cases:
        rows = [(row[0], row[1] if scoped else "", *row[2:5]) for row in _rows(cases)]
        table(("ID", "SCOPE", "RECORD", "STATE", "FOUND"), rows)
        for case in cases:
            click.echo(f"{one_line(case.diagnosis.where)}: {case.next_step}", err=True)


def _plain(case: _Case) -> dict[str, Any]:
    key = case.diagnosis.key
    return {
        "id": key.id if key else None,
        "scope": key.scope if key else None,
        "where": case.diagnosis.where,
        "state": case.state,
        "error": case.error,
        "findings": [asdict(each) for each in case.findings],
        "notes": list(case.diagnosis.notes),
        "next": case.next_step,
    }


def _rows(cases: Iterable[_Case]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each finding, and one for the error; a position that is none is the end."""
    for case in cases:
        key = case.diagnosis.key
        named = (one_line(key.id), one_line(key.scope)) if key else (one_line(case.diagnosis.where), "")
        state = "left out" if case.state == "sound" else case.state
        for each in case.findings:
            place = "end" if each.position == ADDED else str(each.position)
            yield (*named, place, state, one_line(each.what), case.next_step)
        if case.error:
            yield (*named, "", state, one_line(case.error), case.next_step)


def _tell(counts: Counter[str]) -> None:
    told = ", ".join(f"{counts[state]} {words}" for state, words in _WORDS.items() if counts[state])
    click.echo(f"{sum(counts.values())} conversations looked at" + (f": {told}" if told else ""), err=True)
