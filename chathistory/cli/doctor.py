"""`chathistory doctor`: what cannot be read or sent as it is stored, and its repair."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.escape import to_one_line
from chathistory.cli.output import print_json, print_rows, show_progress
from chathistory.cli.target import Target, optional_id_argument, shared_options
from chathistory.errors import ChatHistoryError, StoreUnavailable
from chathistory.history import History
from chathistory.log.conversation_log import ConversationLog
from chathistory.operations.check import Diagnosis, Walk, repair_diagnosed
from chathistory.view import ViewRepair
from chathistory.view.item import ADDED

if TYPE_CHECKING:
    from chathistory.cli.doctor_online import Check

__all__ = ["doctor"]

_COUNTS = {
    "sound": "sound",
    "repaired": "repaired",
    "repairable": "repairable (with --repair)",
    "waiting": "waiting for tool results, and left alone",
    "not repaired": "not repaired",
}
_NEXT_STEPS = {
    "lost": "nothing of it can be read here: restore a copy of it, or remove it with `chathistory delete`",
    "unsupported": "update chathistory on this machine",
    "changing": "run this again when nobody writes to it",
    "repairable": "the rest stays readable",
    "waiting": "add the results, or name it to have errors stored in their place",
    "restorable": "a new head is made of its records",
    "sound": "nothing to do; export it with --salvage",
}


@dataclass(frozen=True, slots=True)
class _Case:
    """What was found in a conversation, what became of it, and what prevented its repair."""

    diagnosis: Diagnosis
    state: str
    findings: tuple[ViewRepair, ...] = ()
    error: str | None = None

    @property
    def next_step(self) -> str:
        if self.state == "repairable":
            return "add --repair to repair it"
        if self.state == "repaired":
            return "nothing more to do"
        if self.state == "not repaired" and self.diagnosis.state in ("repairable", "waiting", "restorable"):
            return "try again later; --force repairs it even while a turn is open"
        return _NEXT_STEPS[self.diagnosis.state]


@click.command()
@optional_id_argument
@click.option("--repair", is_flag=True, help="Repair what can be repaired. Without this option nothing is changed.")
@click.option("--force", is_flag=True, help="Repair a conversation even while a turn of it is open.")
@click.option("--online", is_flag=True, help="Ask the API as well, by counting tokens: it is free, but needs a key.")
@shared_options("json", "all_scopes")
def doctor(id: str | None, *, repair: bool, force: bool, online: bool, target: Target, as_json: bool) -> int:
    r"""Find damaged or unsendable records, of all conversations of the scope, or of one; with --repair, skip them.

    Conversations are found by a walk over the storage itself. A repair removes no record that can be read: what cannot
    be read or sent is left out from then on, and a damaged head is made anew from the records. With --repair, standard
    error names what will be left out before it is done. A conversation that waits for tool results is left alone,
    unless it is named.

    With --online the API is asked whether it takes the conversation; what it refuses (an image, an expired file,
    thinking of another account) is left out as well.

    When it does not go to a terminal, one line each: id, scope, position, state, what was found, the next step,
    separated by tabs. The exit code is 0 if all is sound or repaired, and 1 if something is not.

    \b
    Examples:
      chathistory doctor --all-scopes
      chathistory doctor thesis --repair
      chathistory doctor thesis --online
    """
    if id is not None and target.all_scopes:
        raise click.UsageError("an ID is of one scope; leave out --all-scopes, or the ID.")
    counts: Counter[str] = Counter()
    cases: list[_Case] = []
    notes: list[str] = []
    scope = None if target.all_scopes else target.scope
    asking = _start_asking(target, online=online)
    with target.opened() as history, asking as ask, show_progress("examining", None) as step:
        walk = Walk(history.store, scope, None if id is None else [id])
        for diagnosis in walk.diagnoses():
            case = _treat(history, diagnosis, repair=repair, force=force, is_named=id is not None)
            if ask and case.state in ("sound", "repaired"):  # else something else must be repaired first
                case = _ask(history, case, ask, repair=repair)
            counts[case.state] += 1
            notes += diagnosis.notes
            if case.state != "sound" or case.findings:
                cases.append(case)
            step(case)
    if id is not None and not counts:
        raise target.absent(id)
    _print_cases(cases, with_scope=target.all_scopes, as_json=as_json)
    for note in notes:
        click.echo(f"note: {to_one_line(note)}", err=True)
    words = ", ".join(f"{counts[state]} {what}" for state, what in _COUNTS.items() if counts[state])
    click.echo(f"{sum(counts.values())} conversations examined" + (f": {words}" if words else ""), err=True)
    if not walk.is_complete:
        click.echo("some conversations may have been missed: this account may not search the whole storage", err=True)
    if counts["repairable"] or counts["not repaired"]:
        return ExitCode.FAILED
    return ExitCode.OK if walk.is_complete else ExitCode.PARTLY


def _start_asking(target: Target, *, online: bool) -> AbstractContextManager[Check | None]:
    if not online:
        return nullcontext()
    from chathistory.cli.doctor_online import start_asking  # brings the SDK

    return start_asking(target.settings)


def _ask(history: History, case: _Case, ask: Check, *, repair: bool) -> _Case:
    """Return the case with what the API refuses."""
    key = case.diagnosis.key
    if key is None:
        return case
    try:
        refused = ask(history, key, repair)
    except StoreUnavailable:
        raise
    except ChatHistoryError as error:
        return replace(case, state="not repaired", error=str(error))
    if not refused:
        return case
    too_large = any(each.position == ADDED for each in refused)  # the user must decide what to leave out
    state = "not repaired" if too_large else "repaired" if repair else "repairable"
    return _Case(case.diagnosis, state, (*(case.findings if case.state == "repaired" else ()), *refused))


def _treat(history: History, diagnosis: Diagnosis, *, repair: bool, force: bool, is_named: bool) -> _Case:
    """Return what was found, and repair what can be repaired if that is asked for."""
    findings = diagnosis.findings
    problem = None if diagnosis.problem is None else str(diagnosis.problem)
    if diagnosis.state == "sound":
        return _Case(diagnosis, "sound", diagnosis.left_out)
    if diagnosis.state == "waiting" and not is_named:
        return _Case(diagnosis, "waiting", findings)
    if diagnosis.key is None or diagnosis.state in ("lost", "unsupported", "changing"):
        return _Case(diagnosis, "not repaired", findings, problem)
    if not repair:
        return _Case(diagnosis, "repairable", findings, problem)
    name = to_one_line(diagnosis.where)
    for words in (*([problem] if problem else []), *(f"{_name_place(each)}: {each.what}" for each in findings)):
        click.echo(f"{name}: {to_one_line(words)}", err=True)  # what will be left out, before it is done
    sys.stderr.flush()
    try:
        done = repair_diagnosed(ConversationLog(history.store, diagnosis.key), diagnosis, force=force)
    except StoreUnavailable:
        raise
    except ChatHistoryError as error:
        return _Case(diagnosis, "not repaired", findings, str(error))
    return _Case(diagnosis, "repaired", done, problem)


def _name_place(finding: ViewRepair) -> str:
    return "end" if finding.position == ADDED else f"record {finding.position}"


def _print_cases(cases: Iterable[_Case], *, with_scope: bool, as_json: bool) -> None:
    if as_json:
        for case in cases:
            print_json(_as_json(case))
        return
    rows = [row for case in cases for row in _list_rows(case)]
    if not sys.stdout.isatty():
        print_rows((), rows)
        return
    columns = ("ID", "SCOPE", "RECORD", "STATE", "FOUND")
    print_rows(columns, [(row[0], row[1] if with_scope else "", *row[2:5]) for row in rows])
    for case in cases:
        click.echo(f"{to_one_line(case.diagnosis.where)}: {case.next_step}", err=True)


def _as_json(case: _Case) -> dict[str, Any]:
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


def _list_rows(case: _Case) -> Iterator[tuple[str, ...]]:
    """Yield a row for each finding, and one for the error."""
    key = case.diagnosis.key
    name = (key.id, key.scope) if key else (case.diagnosis.where, "")
    state = "left out" if case.state == "sound" else case.state
    for each in case.findings:
        yield (*name, _name_place(each).removeprefix("record "), state, each.what, case.next_step)
    if case.error:
        yield (*name, "", state, case.error, case.next_step)
