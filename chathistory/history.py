"""A history: all conversations of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from chathistory.checks import check_store, refuse_pickling
from chathistory.conversation import Conversation
from chathistory.defaults import OWN_SCOPE, resolve_scope
from chathistory.durations import check_duration
from chathistory.errors import CorruptRecord, InvalidInput
from chathistory.log.conversation_log import ConversationLog
from chathistory.operations.listing import ConversationInfo, Filter, list_page
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.storage.values import Cursor, Key, Page

if TYPE_CHECKING:
    from chathistory.aio import AsyncHistory
    from chathistory.operations.check_conversations import CheckReport, Diagnosis
    from chathistory.operations.remove_conversations import DeletedConversation, EraseReport, PruneReport
    from chathistory.transfer.copy import CopyReport, Progress
    from chathistory.transfer.copy_sources import Selection
    from chathistory.transfer.import_export import ExportReport
    from chathistory.transfer.open_files import File

__all__ = ["ConversationInfo", "History"]


class History:
    """The conversations of one store. Opening it, or a conversation of it, does no input or output.

    A call that names no scope means the history's own. `"support/42" in history` is `history.exists("support/42")`.
    """

    def __init__(
        self, store: HistoryStore | History | AsyncHistory | StoreURL | str, *, scope: str = OWN_SCOPE
    ) -> None:
        """Use a store.

        Args:
            store: A store, or a history whose store to use: they stay the caller's to close. Or the URL of a store,
                such as "file:./history", which `close` closes.
            scope: The scope that calls mean which name none; without it that of the history given, else "default".

        Raises:
            InvalidInput: `store` is none of these, such as a database client.
            ConfigError: The URL is wrong, or its backend cannot be used.
        """
        self._closes_store = isinstance(store, str | StoreURL)
        own = "default"
        if isinstance(store, str | StoreURL):
            from chathistory.storage.plugins import open_store  # brings pluggy

            self.store: HistoryStore = open_store(store)
        else:
            history = store if isinstance(store, History) else getattr(store, "sync", None)
            found: Any = history.store if isinstance(history, History) else store
            check_store(found)
            self.store = found
            own = history.scope if isinstance(history, History) else own
        self.scope: str = resolve_scope(scope, own)

    def key(self, id: str, scope: str = OWN_SCOPE) -> Key:
        """Return the key of a conversation, in the history's own scope unless one is named."""
        return Key(resolve_scope(scope, self.scope), id)

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
        """Return the conversations of a scope, those with the newest activity first, a page at a time.

        With a filter one call looks at 1,000 conversations at most, so a page may be short, or empty, with more to
        come: continue while there is a `next`. Without one a page is short only at the end.

        Args:
            scope: The scope to list.
            limit: How many rows a page has, at most.
            after: The `next` of the page before; None: the first page.
            title: Part of the title, or of the preview where there is no title, in upper or lower case.
            tag: A tag, or several that must all be there.
            metadata: Values that must be there, by their names.
            model: The model of the last reply.
            since: The newest activity was at this time or later; an aware datetime.
            until: The newest activity was before this time; an aware datetime.
            unanswered: Only those whose last turn has no reply: it is open, was interrupted or refused
                (`ConversationInfo.turn`).

        Returns:
            The rows as `.items`, [] for an unknown scope, and the cursor of the following page as `.next`, None at the
            end. A conversation that cannot be read is in `.damaged`, whatever the filter, and does not count towards
            `limit`; `repair` and `restore` may help.

        Raises:
            InvalidInput: `limit` is below 1, a time has no zone, or `after` is a cursor of another listing.
        """
        wanted = Filter.from_arguments(
            title=title, tag=tag, metadata=metadata, model=model, since=since, until=until, unanswered=unanswered
        )
        return list_page(self.store, resolve_scope(scope, self.scope), limit=limit, after=after, row_filter=wanted)

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
        from chathistory.operations.remove_conversations import delete_conversation

        log = ConversationLog(self.store, self.key(id, scope))
        return delete_conversation(log, expected, dry_run=dry_run)

    def exists(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """Return whether there is a conversation of that name, in one round trip; also if it is damaged."""
        try:
            return ConversationLog(self.store, self.key(id, scope)).look() is not None
        except CorruptRecord:
            return True

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.exists(id)

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes that have conversations, in order; it walks over the names of all conversations."""
        return tuple(sorted({key.scope for key in self.store.keys(None)}))

    def rename(self, id: str, new_id: str, *, scope: str = OWN_SCOPE) -> None:
        """Give a conversation another id; all else stays: its messages, positions, times and version.

        It is copied, and the old one is deleted when the copy is whole. A process that ends in between leaves the same
        conversation under both ids, and the same call made again completes it.

        Args:
            id: The conversation.
            new_id: Its new id.
            scope: The scope of both.

        Raises:
            ConversationNotFound: There is no such conversation.
            ConversationExists: There is another conversation under the new id; nothing was changed.
            TurnInProgress: A turn is open.
            Conflict: Others wrote to it all the time; it keeps its id.
        """
        from chathistory.transfer.copy import rename_conversation

        rename_conversation(self.store, self.key(id, scope), self.key(new_id, scope))

    # Moving.

    def copy_to(
        self,
        other: HistoryStore | History | AsyncHistory | StoreURL | str,
        *,
        scope: str = OWN_SCOPE,
        all_scopes: bool = False,
        ids: Iterable[str] | None = None,
        replace: bool = False,
        verify: bool = True,
        threads: int = 4,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> CopyReport:
        """Copy conversations into another store, to the character: positions, times, versions, and so their order.

        They have the same id and scope there, and are seen when they are whole. What is there already is skipped, and
        what is an earlier state is continued, so a copy that broke off (or one that is to be brought up to date) is
        just made again.

        Args:
            other: A store, a history, or the URL of a store.
            scope: The scope to copy.
            all_scopes: Copy all scopes.
            ids: Only these conversations of the scope; None: all.
            replace: Delete what stands under the same name and is something else; without it that stays, and the report
                says so.
            verify: Read each copy back and compare it.
            threads: How many conversations are copied at once, at most.
            full_scan: Find the conversations by a walk over the whole storage, where its index may lack some.
            progress: Called after each conversation.

        Returns:
            What was done; what is wrong with one conversation (damaged, too large for the other store, or not there).

        Raises:
            InvalidInput: `other` is no store, or `all_scopes` was given together with a scope or ids.
            StoreError: Something is wrong with one of the stores.
        """
        from chathistory.transfer.copy import CopyReport, copy_all

        chosen = self._select(scope, all_scopes=all_scopes, ids=ids, full_scan=full_scan)
        report = CopyReport()
        with History(other) as target:
            for result in copy_all(chosen, target.store, replace=replace, verify=verify, threads=threads):
                report.add(result)
                if progress:
                    progress(result)
        report.damaged += chosen.list_damaged()
        report.all_found = chosen.has_found_all(report.damaged)
        return report

    def _select(self, scope: str, *, all_scopes: bool, ids: Iterable[str] | None, full_scan: bool) -> Selection:
        """Return the conversations that a call means. Raises `InvalidInput` for what contradicts itself."""
        from chathistory.transfer.copy_sources import Selection

        if isinstance(ids, str):
            raise InvalidInput("ids: must be a list of ids, not text")
        if all_scopes and (ids is not None or scope is not OWN_SCOPE):
            raise InvalidInput("all_scopes: cannot be given together with a scope or ids")
        meant = None if all_scopes else resolve_scope(scope, self.scope)
        return Selection(self.store, meant, None if ids is None else tuple(ids), full_scan)

    def export_to(
        self,
        file: File,
        *,
        scope: str = OWN_SCOPE,
        all_scopes: bool = False,
        ids: Iterable[str] | None = None,
        format: Literal["jsonl", "markdown"] | None = None,  # noqa: A002 - the word that people look for
        salvage: bool = False,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write conversations into a file.

        No more than a part of one conversation (Markdown: one) is in memory.

        Args:
            file: A path, which is there or replaced only when all is written and which only its owner may read, or a
                file open for bytes. A name that ends in `.gz` compresses.
            scope: The scope to export.
            all_scopes: Export all scopes.
            ids: Only these conversations of the scope; None: all.
            format: "jsonl", JSON lines that `import_from` reads back to the character, or "markdown", for people. None:
                Markdown if the name ends in `.md`, else JSON lines.
            salvage: Of a damaged conversation write what can be read, with an entry of kind `record_lost` in the place
                of each record that cannot be read.
            full_scan: Find the conversations by a walk over the whole storage, where its index may lack some.
            progress: Called after each conversation.

        Returns:
            What was written; damaged conversations, and `ids` that are not there.

        Raises:
            InvalidInput: `all_scopes` was given together with a scope or ids, or `file` is no file.
            OSError: The file cannot be written.
        """
        from chathistory.transfer.import_export import ExportReport, write_jsonl
        from chathistory.transfer.markdown import write_markdown
        from chathistory.transfer.open_files import get_suffix, open_to_write

        is_markdown = format == "markdown" or (format is None and get_suffix(file) == ".md")
        chosen = self._select(scope, all_scopes=all_scopes, ids=ids, full_scan=full_scan)
        report = ExportReport()
        with open_to_write(file) as out:
            for result in (write_markdown if is_markdown else write_jsonl)(chosen, out, salvage=salvage):
                report.add(result)
                if progress:
                    progress(result)
        report.damaged += chosen.list_damaged()
        report.all_found = chosen.has_found_all(report.damaged)
        return report

    def import_from(
        self,
        file: File,
        *,
        id: str | None = None,
        scope: str = OWN_SCOPE,
        all_scopes: bool = False,
        replace: bool = False,
        progress: Progress | None = None,
    ) -> CopyReport:
        """Store what a file holds: an export (JSON lines), or a plain list of messages, under the name `id`.

        A list of messages is JSON: a list, an object with `messages`, or one message on each line. Times and ids that
        stand beside messages are kept, and the title of the object. The same list is known again: it is skipped, and
        one that has grown is continued. What is there already is handled as `copy_to` does.

        Args:
            file: A path, or a file open for bytes; compressed or not.
            id: The name for a list of messages.
            scope: Store all conversations in this scope, whatever scope they were exported from.
            all_scopes: Store each conversation of an export in the scope that it was exported from.
            replace: See `copy_to`.
            progress: Called after each conversation.

        Returns:
            What was done. What belongs to no conversation is in `skipped`; files may be put behind each other.

        Raises:
            InvalidInput: The file was broken off; what came before is stored, whole, and skipped the next time. Or
                `all_scopes` was given together with a scope.
        """
        from chathistory.transfer.copy import CopyReport
        from chathistory.transfer.import_export import import_file
        from chathistory.transfer.jsonl import SkippedLines
        from chathistory.transfer.open_files import open_to_read

        if all_scopes and scope is not OWN_SCOPE:
            raise InvalidInput("all_scopes: cannot be given together with a scope")
        report = CopyReport()
        meant = resolve_scope(scope, self.scope)
        with open_to_read(file) as source:
            for result in import_file(self.store, source, scope=meant, all_scopes=all_scopes, id=id, replace=replace):
                if isinstance(result, SkippedLines):
                    report.skipped.append(str(result))
                    continue
                report.add(result)
                if progress:
                    progress(result)
        return report

    # Keeping, and forgetting.

    def prune(
        self,
        *,
        scope: str = OWN_SCOPE,
        age: timedelta | float | str | None = None,
        ttl: timedelta | float | str | None = None,
        count: int | None = None,
        dry_run: bool = True,
        full_scan: bool = False,
        progress: Callable[[DeletedConversation], object] | None = None,
    ) -> PruneReport:
        """Remove conversations of a scope for good, and what has expired; `dry_run=False`, or it is only reported.

        What is written meanwhile is kept, and so is what is damaged: the report names it.

        Args:
            scope: The scope to look through.
            age: Remove those that were begun longer ago: a `timedelta`, text such as "90d", or seconds.
            ttl: Remove those without activity (messages and turns) for longer; as `age`.
            count: Remove all but so many with the newest activity, as exactly as the store's `traits.recency`.
            dry_run: Only return what would go.
            full_scan: Find the conversations by a walk over the whole storage, where the listing may lack some.
            progress: Called with each that goes.

        Raises:
            InvalidInput: Something is negative, or no duration.
            StoreRejected: The account may not walk over the storage (`full_scan`).
        """
        from chathistory.operations.remove_conversations import PruneLimits, prune_scope

        policy = PruneLimits(
            age=None if age is None else check_duration("age", age),
            ttl=None if ttl is None else check_duration("ttl", ttl),
            count=count,
        )
        scope = resolve_scope(scope, self.scope)
        return prune_scope(self.store, scope, policy, dry_run=dry_run, full_scan=full_scan, progress=progress)

    def check(
        self,
        *,
        scope: str = OWN_SCOPE,
        all_scopes: bool = False,
        ids: Iterable[str] | None = None,
        progress: Callable[[Diagnosis], object] | None = None,
    ) -> CheckReport:
        """Look at conversations for what cannot be read or sent; nothing is changed.

        What is there is found by a walk over the storage itself, and each conversation is read in portions.

        Args:
            scope: The scope to look through.
            all_scopes: Look through all scopes.
            ids: Only these conversations of the scope; None: all.
            progress: Called with what was found of each, sound ones included.

        Returns:
            What is not sound, and what can be done about it: see `Conversation.repair` and `Conversation.restore`.

        Raises:
            InvalidInput: `all_scopes` was given together with a scope or ids.
        """
        from chathistory.operations.check_conversations import check_conversations

        chosen = self._select(scope, all_scopes=all_scopes, ids=ids, full_scan=True)
        return check_conversations(self.store, chosen.scope, chosen.ids, progress)

    def erase(
        self,
        scope: str = OWN_SCOPE,
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
            InvalidInput: The scope is not text.
        """
        from chathistory.operations.remove_conversations import erase_scope

        return erase_scope(self.store, resolve_scope(scope, self.scope), progress, dry_run=dry_run)

    def close(self) -> None:
        """Close the store if it was opened from a URL here; one that was handed in stays open."""
        if self._closes_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and open a History in the other process")
