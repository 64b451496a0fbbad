"""The shelf: all conversations of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

from chathistory.checks import check_store, refuse_pickling
from chathistory.conversation import Conversation
from chathistory.errors import InvalidInput
from chathistory.log.conversation_log import ConversationLog
from chathistory.operations.listing import ConversationInfo, Filter, recent
from chathistory.storage.store import Cursor, HistoryStore, Key, Page

if TYPE_CHECKING:
    from chathistory.operations.check import CheckReport, Diagnosis
    from chathistory.operations.prune import DeletedConversation, EraseReport, PruneReport
    from chathistory.transfer.copy import CopyReport, Progress, Selection
    from chathistory.transfer.export import ExportReport
    from chathistory.transfer.files import File

__all__ = ["OWN_SCOPE", "ConversationInfo", "History"]


class _NotNamed(str):
    """Text that stands for itself: `is` tells it from the same text given by a caller."""

    __slots__ = ()


OWN_SCOPE: Final = _NotNamed("default")
"""The scope of a call that names none: the history's own. Not None, which is more likely a bug of the caller's."""


class History:
    """The conversations of one store. Opening it, or a conversation of it, does no input or output."""

    def __init__(self, store: HistoryStore, *, scope: str = "default") -> None:
        """Use `store`, which stays the caller's to close; scope: the one that calls mean which name none.

        Raises `InvalidInput` for what is no store, such as a URL or a database client.
        """
        check_store(store)
        self.store = store
        self.scope = scope

    def key(self, id: str, scope: str = OWN_SCOPE) -> Key:
        """Return the key of a conversation, in the history's own scope unless one is named."""
        return Key(self._named(scope), id)

    def _named(self, scope: str) -> str:
        return self.scope if scope is OWN_SCOPE else scope

    def conversation(self, id: str, *, scope: str = OWN_SCOPE) -> Conversation:
        """Return the conversation of that name, whether it exists yet or not. Raises `InvalidInput` for a bad name."""
        return Conversation(self.store, self.key(id, scope))

    def list(
        self,
        *,
        scope: str = OWN_SCOPE,
        limit: int = 20,
        after: Cursor | None = None,
        title: str | None = None,
        tag: str | Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        unanswered: bool = False,
    ) -> Page[ConversationInfo]:
        """Return the conversations of a scope, those with the newest activity first, `limit` at a time.

        `.items` are the rows (none for an unknown scope), `.next` is the `after` of the following page, None at the
        end. Only those are returned that fit all that is given: `title` is part of the title (of the preview where
        there is none), in upper or lower case; `tag` one tag, or several that must all be there; `metadata` values
        that must be there by their names; `model` that of the last reply; the newest activity is at `since` or later,
        and before `until` (aware datetimes). `unanswered`: only those whose last turn has no reply, for it is open, was
        interrupted or refused (`ConversationInfo.turn`).

        Without these a page is short only at the end. With them one call looks at 1,000 conversations at most, so a
        page may be short, or empty, with more to come: go on while there is a `next`.

        A conversation that cannot be read is in `.damaged`, whatever is asked for, and does not count towards `limit`;
        `repair` and `restore` may mend it.

        Raises `InvalidInput` for a `limit` below 1, a time without a zone or a cursor of another listing.
        """
        wanted = Filter.of(
            title=title, tag=tag, metadata=metadata, model=model, since=since, until=until, unanswered=unanswered
        )
        return recent(self.store, self._named(scope), limit=limit, after=after, wanted=wanted)

    def delete(
        self, id: str, *, scope: str = OWN_SCOPE, expected: str | None = None, dry_run: bool = False
    ) -> DeletedConversation | None:
        """Remove a conversation for good. A damaged one goes as well.

        Args:
            id: The conversation.
            scope: Whose it is.
            expected: Its version as the caller has seen it; None: it goes whatever was written to it since.
            dry_run: Only return what would go.

        Returns:
            What went; None: there was none.

        Raises:
            Conflict: The conversation has another version than `expected`; nothing was removed.
        """
        from chathistory.operations.prune import delete_conversation  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        log = ConversationLog(self.store, self.key(id, scope))
        return delete_conversation(log, expected, dry_run=dry_run)

    # Moving.

    def copy_to(
        self,
        other: History | HistoryStore,
        *,
        scope: str | None = None,
        ids: Iterable[str] | None = None,
        replace: bool = False,
        verify: bool = True,
        threads: int = 4,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> CopyReport:
        """Copy conversations into another store, to the character: positions, times, versions, and so their order.

        All of them, or those of `scope`, or those `ids` of it. A conversation is seen there when it is whole. What is
        there already is skipped, and what is an earlier state is continued, so a copy that broke off (or one that is
        to be brought up to date) is just made again. If something else is there under the same name it stays, and
        the report says so; `replace`: it is deleted first. `verify`: each copy is read back and compared.

        At most `threads` are under way at once; `progress` is called after each. What is wrong with one conversation
        (damaged, too large for the other store, or not there) is in the report; raises what is wrong with a store.
        `full_scan`: the conversations are found by a walk over the whole storage, where its index may lack some.
        """
        from chathistory.transfer.copy import CopyReport, copied  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        store = other.store if isinstance(other, History) else other
        check_store(store, "other")
        chosen = self._select(scope, ids, full_scan=full_scan)
        report = CopyReport()
        for arrival in copied(chosen, store, replace=replace, verify=verify, threads=threads):
            report.add(arrival)
            if progress:
                progress(arrival)
        report.damaged += chosen.damaged()
        report.all_found = chosen.all_found(report.damaged)
        return report

    def _select(self, scope: str | None, ids: Iterable[str] | None, *, full_scan: bool) -> Selection:
        from chathistory.transfer.copy import Selection  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        if ids is None:
            return Selection(self.store, scope, None, full_scan)
        return Selection(self.store, scope or self.scope, tuple(ids), full_scan)

    def export_to(
        self,
        file: File,
        *,
        scope: str | None = None,
        ids: Iterable[str] | None = None,
        format: Literal["jsonl", "markdown"] | None = None,  # noqa: A002 - the word that people look for
        salvage: bool = False,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write conversations into a file: all, or those of `scope`, or those `ids` of it ("default" if no scope).

        `file`: a path, which is there or replaced only when all is written and which only its owner may read, or a
        file open for bytes. JSON lines, which `import_from` reads back to the character; Markdown, for people, if the
        name ends in `.md` or `format` says so. A name that ends in `.gz` compresses.

        No more than a part of one conversation (Markdown: one) is in memory. Damaged ones, and `ids` that are not
        there, are in the report. `salvage`: of damaged ones what can be read is written, with a record of the kind
        `lost` in the place of each that cannot. `full_scan`: the conversations are found by a walk over the whole
        storage, where its index may lack some.
        """
        from chathistory.transfer.export import ExportReport, as_markdown, exported  # noqa: PLC0415 - only for who asks for it: each module costs who imports us
        from chathistory.transfer.files import suffix_of, writing  # noqa: PLC0415 - as above

        as_text = format == "markdown" or (format is None and suffix_of(file) == ".md")
        chosen = self._select(scope, ids, full_scan=full_scan)
        report = ExportReport()
        with writing(file) as out:
            for arrival in (as_markdown if as_text else exported)(chosen, out, salvage=salvage):
                report.add(arrival)
                if progress:
                    progress(arrival)
        report.damaged += chosen.damaged()
        report.all_found = chosen.all_found(report.damaged)
        return report

    def import_from(
        self,
        file: File,
        *,
        id: str | None = None,
        scope: str | None = None,
        replace: bool = False,
        progress: Progress | None = None,
    ) -> CopyReport:
        """Store what a file holds: an export (JSON lines), or a plain list of messages, under the name `id`.

        `file`: a path, or a file open for bytes; compressed or not. `scope`: into this one; None: into those in which
        they were ("default" for a list of messages). What is there already is handled as `copy_to` does.

        A list of messages is JSON: a list, an object with `messages`, or one message on each line. Times and ids that
        stand beside messages are kept, and the title of the object. The same list is known again: it is skipped, and
        one that has grown is continued.

        What belongs to no conversation is passed over, and in the report (`skipped`); files may be put behind each
        other. Raises `InvalidInput` if the file was broken off; what came before is stored, whole, and skipped the
        next time.
        """
        from chathistory.transfer.copy import CopyReport  # noqa: PLC0415 - as above
        from chathistory.transfer.export import imported  # noqa: PLC0415 - as above
        from chathistory.transfer.files import reading  # noqa: PLC0415 - as above
        from chathistory.transfer.jsonl import Skipped  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        report = CopyReport()
        with reading(file) as source:
            for arrival in imported(self.store, source, scope=scope, id=id, replace=replace):
                if isinstance(arrival, Skipped):
                    report.skipped.append(str(arrival))
                    continue
                report.add(arrival)
                if progress:
                    progress(arrival)
        return report

    # Keeping, and forgetting.

    def prune(
        self,
        *,
        scope: str = OWN_SCOPE,
        age: timedelta | None = None,
        ttl: timedelta | None = None,
        count: int | None = None,
        dry_run: bool = True,
        full_scan: bool = False,
        progress: Callable[[DeletedConversation], object] | None = None,
    ) -> PruneReport:
        """Remove conversations of a scope for good, and what has expired; `dry_run=False`, or it is only reported.

        What is written meanwhile is kept, and so is what is damaged: the report names it.

        Args:
            scope: The scope to look through.
            age: Remove those that were begun longer ago.
            ttl: Remove those without activity (messages and turns) for longer.
            count: Remove all but so many with the newest activity, as exactly as the store's `traits.recency`.
            dry_run: Only return what would go.
            full_scan: Find the conversations by a walk over the whole storage, where the listing may lack some.
            progress: Called with each that goes.

        Raises:
            InvalidInput: Something is negative.
            StoreRejected: The account may not walk over the storage (`full_scan`).
        """
        from chathistory.operations.prune import Policy, prune_scope  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        policy = Policy(age=age, ttl=ttl, count=count)
        scope = self._named(scope)
        return prune_scope(self.store, scope, policy, dry_run=dry_run, full_scan=full_scan, tell=progress)

    def check(
        self,
        *,
        scope: str | None = None,
        ids: Iterable[str] | None = None,
        progress: Callable[[Diagnosis], object] | None = None,
    ) -> CheckReport:
        """Look at conversations for what cannot be read or sent; nothing is changed.

        What is there is found by a walk over the storage itself, and each conversation is read in portions.

        Args:
            scope: The scope to look through; None: all scopes.
            ids: Only these conversations, of `scope` (None: of the history's own).
            progress: Called with what was found of each, sound ones included.

        Returns:
            What is not sound, and what can be done about it: see `Conversation.repair` and `Conversation.restore`.
        """
        from chathistory.operations.check import check  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        return check(self.store, scope or self.scope if ids is not None else scope, ids, progress)

    def erase(
        self,
        scope: str,
        *,
        dry_run: bool = False,
        progress: Callable[[DeletedConversation], object] | None = None,
    ) -> EraseReport:
        """Remove all that is stored in a scope for good, damaged or expired as well, and return what went.

        For the request of somebody to be forgotten. What is there is found by a walk over the storage itself, never
        through an index that can lose entries, and looked for once more in the end: the report is `complete` only if
        nothing was found then. A scope without conversations gives an empty report. Forks into other scopes are
        conversations of those.

        Args:
            scope: The scope to erase.
            dry_run: Only return what would go.
            progress: Called with each conversation that went.

        Raises:
            InvalidInput: No scope was named.
        """
        from chathistory.operations.prune import erase_scope  # noqa: PLC0415 - only for who asks for it: each module costs who imports us

        if not isinstance(scope, str):
            raise InvalidInput(f"the scope to erase must be text, not {type(scope).__name__}")
        return erase_scope(self.store, scope, progress, dry_run=dry_run)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and open a History in the other process")
