"""`chathistory doctor`: find what cannot be read or sent, or is refused by the API, and repair it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.options import CommandTarget, optional_id_argument, shared_options
from chathistory.cli.output import format_count, key_to_json, print_json, print_rows, show_progress, to_one_line
from chathistory.cli.responder import Responder, make_responder
from chathistory.errors import ChatHistoryError, StoreUnavailable
from chathistory.history import History
from chathistory.log.conversation_log import ConversationLog
from chathistory.operations.check_conversations import ConversationWalk, Diagnosis, repair_diagnosed
from chathistory.storage.values import Key
from chathistory.view import ViewRepair
from chathistory.view.item import ADDED

__all__ = ["doctor"]

_MAX_CHECKS = 50  # API checks per conversation
_COUNTS = {
    "sound": "sound",
    "repaired": "repaired",
    "repairable": "repairable (with --repair)",
    "waiting": "waiting for tool results (not changed)",
    "not repaired": "not repaired",
}
_NEXT_STEPS = {
    "lost": "nothing of it can be read: restore it from a copy, or remove it with `chathistory delete`",
    "unsupported": "update chathistory on this machine",
    "changing": "run `chathistory doctor` again when nobody writes to it",
    "repairable": "the rest stays readable",
    "waiting": "add the tool results, or give its ID and --repair to store errors in their place",
    "restorable": "--repair makes a new head from its records",
    "sound": "nothing to do; `chathistory export --salvage` writes what can be read",
}


@dataclass(frozen=True, slots=True)
class _Case:
    """A conversation that was examined.

    Attributes:
        diagnosis: What `check` found.
        state: The state after the repair, if there was one: a key of `_COUNTS`.
        findings: What is wrong, or was repaired.
        error: Why it cannot be read or was not repaired; None if there is no such reason.
    """

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
            return "try again later, or add --force to repair it even while a turn is open"
        return _NEXT_STEPS[self.diagnosis.state]

    def list_rows(self) -> Iterator[tuple[str, ...]]:
        """Yield a row of fields for each finding, and one for the error."""
        key = self.diagnosis.key
        name = (key.id, key.scope) if key else (self.diagnosis.where, "")
        state = "left out" if self.state == "sound" else self.state
        for each in self.findings:
            yield (*name, _name_position(each).removeprefix("record "), state, each.description, self.next_step)
        if self.error:
            yield (*name, "", state, self.error, self.next_step)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict for JSON."""
        return {
            **key_to_json(self.diagnosis.key),
            "where": self.diagnosis.where,
            "state": self.state,
            "error": self.error,
            "findings": [asdict(each) for each in self.findings],
            "notes": list(self.diagnosis.notes),
            "next": self.next_step,
        }


@click.command()
@optional_id_argument
@click.option("--repair", is_flag=True, help="Repair what can be repaired. Without it, nothing is changed.")
@click.option("--force", is_flag=True, help="Repair conversations even while a turn is open.")
@click.option(
    "--online",
    is_flag=True,
    help="Also ask the API whether it accepts each conversation. Uses the free token-counting call; needs an API key.",
)
@shared_options("json", "all_scopes")
def doctor(id: str | None, *, repair: bool, force: bool, online: bool, target: CommandTarget, as_json: bool) -> int:
    r"""Find damaged or unsendable conversations, and repair them.

    It examines one conversation, or all of the scope; it reads the storage itself, not an index. It changes nothing
    without --repair. A repair removes no record that can be read: what cannot be read or sent is left out from then on,
    and a damaged head is restored from the records. Before a repair, it prints to standard error what will be left out.
    A conversation that waits for tool results is changed only if you give its ID.

    With --online it asks the API whether it accepts each conversation. What the API refuses (an image, an expired file,
    thinking of another account) is left out as well.

    Conversations with nothing to report are only counted, on standard error; --json prints nothing for them. If
    standard output is not a terminal, it prints one line per finding with fields separated by tabs: id, scope,
    position, state, finding, next step. The exit code is 0 if nothing needs repair (conversations that wait for tool
    results count as fine), 1 if something needs repair or was not repaired, and 3 if some may have been missed.

    \b
    Examples:
      chathistory doctor --all-scopes
      chathistory doctor thesis --repair
      chathistory doctor thesis --online
    """
    if id is not None and target.all_scopes:
        raise click.UsageError("an ID is only valid in one scope; leave out --all-scopes or the ID.")
    scope = None if target.all_scopes else target.scope
    responder = make_responder(target.settings) if online else None
    counts: Counter[str] = Counter()
    cases: list[_Case] = []
    notes: list[str] = []
    asking = responder.client if responder else nullcontext()
    with target.open() as history, asking, show_progress("examining", None) as step:
        walk = ConversationWalk(history.store, scope, None if id is None else [id])
        for diagnosis in walk.iter_diagnoses():
            case = _examine_conversation(history, diagnosis, repair=repair, force=force, is_named=id is not None)
            if responder and diagnosis.key and case.state in ("sound", "repaired"):  # first repair what is damaged
                case = _ask_api(history, diagnosis.key, case, responder, repair=repair)
            counts[case.state] += 1
            notes += diagnosis.notes
            if case.state != "sound" or case.findings:
                cases.append(case)
            step(case)
    if id is not None and not counts:
        raise target.make_not_found_error(id)
    _print_cases(cases, target, as_json=as_json)
    for note in notes:
        click.echo(f"note: {to_one_line(note)}", err=True)
    totals = ", ".join(f"{counts[state]} {meaning}" for state, meaning in _COUNTS.items() if counts[state])
    click.echo(
        f"{format_count(sum(counts.values()), 'conversation')} examined" + (f": {totals}" if totals else ""), err=True
    )
    if not walk.is_complete:
        click.echo("some conversations may have been missed: this account may not search the whole storage", err=True)
    if counts["repairable"] or counts["not repaired"]:
        return ExitCode.FAILED
    return ExitCode.OK if walk.is_complete else ExitCode.PARTLY


def _examine_conversation(
    history: History, diagnosis: Diagnosis, *, repair: bool, force: bool, is_named: bool
) -> _Case:
    """Return what was found; with `repair`, repair what can be repaired."""
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
    for text in (
        *([problem] if problem else []),
        *(f"{_name_position(each)}: {each.description}" for each in findings),
    ):
        click.echo(to_one_line(f"{diagnosis.where}: {text}"), err=True)  # what will be left out, before the repair
    sys.stderr.flush()
    try:
        done = repair_diagnosed(ConversationLog(history.store, diagnosis.key), diagnosis, force=force)
    except StoreUnavailable:
        raise
    except ChatHistoryError as error:
        return _Case(diagnosis, "not repaired", findings, str(error))
    return _Case(diagnosis, "repaired", done, problem)


def _ask_api(history: History, key: Key, case: _Case, responder: Responder, *, repair: bool) -> _Case:
    """Return the case with what the API refuses; with `repair`, leave that out from now on."""
    conversation = history.conversation(key.id, scope=key.scope)
    refused: list[ViewRepair] = []
    needs_user_choice = False
    try:
        engine = responder.make_engine(history, conversation, only_check=True)
        for _ in range(_MAX_CHECKS):
            refusal = engine.check(key.id, scope=key.scope)
            if refusal is None:
                break
            needs_user_choice = (
                refusal.kind == "size" or not refusal.locations
            )  # the user must choose what to leave out
            if needs_user_choice:
                description = f"the API refuses it: {refusal.problem}; `chathistory trim` makes it shorter"
                refused.append(ViewRepair(ADDED, description))
                break
            for location in refusal.locations:
                block = "it" if location.block is None else f"block {location.block}"
                refused.append(ViewRepair(location.position, f"left out: the API refuses {block}: {refusal.problem}"))
                if repair:
                    conversation.leave_out(location.position, block=location.block)
            if not repair:
                break
    except StoreUnavailable:
        raise
    except ChatHistoryError as error:
        return replace(case, state="not repaired", error=str(error))
    if not refused:
        return case
    state = "not repaired" if needs_user_choice else "repaired" if repair else "repairable"
    return _Case(case.diagnosis, state, (*(case.findings if case.state == "repaired" else ()), *refused))


def _name_position(finding: ViewRepair) -> str:
    return "end" if finding.position == ADDED else f"record {finding.position}"


def _print_cases(cases: Sequence[_Case], target: CommandTarget, *, as_json: bool) -> None:
    rows = [row for case in cases for row in case.list_rows()]
    if as_json:
        for case in cases:
            print_json(case.to_dict())
    elif not sys.stdout.isatty():
        print_rows((), rows)
    else:
        columns = ("ID", "SCOPE", "RECORD", "STATE", "FOUND")
        print_rows(columns, [(row[0], row[1] if target.all_scopes else "", *row[2:5]) for row in rows])
        for case in cases:
            click.echo(f"{to_one_line(case.diagnosis.where)}: {case.next_step}", err=True)
