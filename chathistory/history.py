"""The `History` class: all conversations of a store."""

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
    """The conversations of one store. Creating it, or getting a conversation from it, does no input or output.

    A call without a scope uses the scope of the history. `"support/42" in history` is the same as
    `history.exists("support/42")`. All methods raise subclasses of `chathistory.errors.StoreError` if the store cannot
    be used, and `InvalidInput` for an id or a scope that is not valid.
    """

    def __init__(
        self, store: HistoryStore | History | AsyncHistory | StoreURL | str, *, scope: str = OWN_SCOPE
    ) -> None:
        """Create the history of a store.

        Args:
            store: The URL of a store, such as "file:./history": the history opens the store, and `close` closes it. Or
                a store, or another history with its store: the caller closes it.
            scope: The scope of calls that name no scope. If it is not given, it is the scope of the given history, or
                "default".

        Raises:
            InvalidInput: `store` has another type, such as a database client.
            ConfigError: The URL is not valid, or its backend cannot be used.
        """
        self._closes_store = isinstance(store, str | StoreURL)
        own = "default"
        if isinstance(store, str | StoreURL):
            from chathistory.storage.plugins import open_store  # it imports pluggy

            self.store: HistoryStore = open_store(store)
        else:
            history = store if isinstance(store, History) else getattr(store, "sync", None)
            given_store: Any = history.store if isinstance(history, History) else store
            check_store(given_store)
            self.store = given_store
            own = history.scope if isinstance(history, History) else own
        self.scope: str = resolve_scope(scope, own)

    def key(self, id: str, scope: str = OWN_SCOPE) -> Key:
        """Return the key of a conversation, which names it in the store.

        Args:
            id: The id of the conversation.
            scope: Its scope; the scope of the history if it is not given.

        Raises:
            InvalidInput: The id or the scope is not valid.
        """
        return Key(resolve_scope(scope, self.scope), id)

    def conversation(self, id: str, *, scope: str = OWN_SCOPE) -> Conversation:
        """Return the conversation with an id, whether it exists yet or not, without input or output.

        Args:
            id: The id of the conversation.
            scope: Its scope; the scope of the history if it is not given.

        Raises:
            InvalidInput: The id or the scope is not valid.
        """
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
        """Return a page of the conversations of a scope, those with the newest activity first.

        Several filters must all match. With a filter, one call looks at 1,000 conversations at most, so a page may be
        short, or even empty, and still have a `next`: continue until `next` is None. Without a filter, only the last
        page is short.

        Args:
            scope: The scope to list; the scope of the history if it is not given.
            limit: How many rows the page has, at most.
            after: The `next` of the previous page; None: the first page.
            title: Text that the title contains, or the preview if there is no title; case is ignored.
            tag: A tag, or several tags that must all be set.
            metadata: Metadata values that must be set, by name.
            model: The model of the last reply.
            since: Only conversations with activity at this time or later; a datetime with a time zone.
            until: Only conversations with their newest activity before this time; a datetime with a time zone.
            unanswered: Only conversations whose last turn has no reply: it is open, or was interrupted or refused
                (`ConversationInfo.turn`).

        Returns:
            A page. `items` has the rows, [] if the scope has no conversations. `next` is the cursor of the next page,
            None at the end. `damaged` has the conversations that cannot be read, whatever the filter; they do not
            count towards `limit`, and `repair` or `restore` may help.

        Raises:
            InvalidInput: `limit` is below 1, a filter has the wrong type, a time has no zone, or `after` is a cursor of
                another listing.
        """
        row_filter = Filter.from_arguments(
            title=title, tag=tag, metadata=metadata, model=model, since=since, until=until, unanswered=unanswered
        )
        return list_page(self.store, resolve_scope(scope, self.scope), limit=limit, after=after, row_filter=row_filter)

    def delete(
        self, id: str, *, scope: str = OWN_SCOPE, expected: str | None = None, dry_run: bool = False
    ) -> DeletedConversation | None:
        """Delete a conversation permanently, also if it is damaged.

        Args:
            id: The id of the conversation.
            scope: Its scope; the scope of the history if it is not given.
            expected: The version that the caller has seen; None: delete it whatever its version is.
            dry_run: Delete nothing; only return what would be deleted.

        Returns:
            What was deleted; None if there was no such conversation.

        Raises:
            Conflict: The conversation has another version than `expected`; nothing was deleted.
        """
        from chathistory.operations.remove_conversations import delete_conversation

        log = ConversationLog(self.store, self.key(id, scope))
        return delete_conversation(log, expected, dry_run=dry_run)

    def exists(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """Return True if there is a conversation with an id, damaged or not; in one round trip.

        Args:
            id: The id of the conversation.
            scope: Its scope; the scope of the history if it is not given.
        """
        try:
            return ConversationLog(self.store, self.key(id, scope)).fetch_head() is not None
        except CorruptRecord:
            return True

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.exists(id)

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes that have conversations, sorted; it reads the keys of all conversations of the store."""
        return tuple(sorted({key.scope for key in self.store.keys(None)}))

    def rename(self, id: str, new_id: str, *, scope: str = OWN_SCOPE) -> None:
        """Give a conversation another id. Its messages, positions, times and version stay the same.

        The conversation is copied, and the old one is deleted when the copy is complete. If the process ends in
        between, the conversation exists under both ids, and the same call, repeated, completes the renaming.

        Args:
            id: The present id.
            new_id: The new id.
            scope: The scope of both; the scope of the history if it is not given.

        Raises:
            ConversationNotFound: There is no conversation with this id.
            ConversationExists: There is another conversation with the new id; nothing was changed.
            TurnInProgress: A turn is open.
            Conflict: Other writers changed the conversation during each attempt; it keeps its id.
        """
        from chathistory.transfer.copy import rename_conversation

        rename_conversation(self.store, self.key(id, scope), self.key(new_id, scope))

    # Copies, exports and imports.

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
        """Copy conversations into another store exactly, with their positions, times and versions.

        They get the same id and scope there. A conversation is visible there only when its copy is complete. One that
        is there already is skipped, and an earlier state of it is brought up to date. So to finish an interrupted copy,
        or to update a copy, call this again.

        Args:
            other: The URL of the other store, or a store or history, which the caller closes.
            scope: The scope to copy; the scope of the history if it is not given.
            all_scopes: Copy all scopes.
            ids: Only these conversations of the scope; None: all.
            replace: If another conversation is stored under the same key, delete it. Otherwise it is kept, and the
                report has the key in `different`.
            verify: Read each copy back and compare it with the original.
            threads: How many conversations are copied at the same time, at most.
            full_scan: Find the conversations by a scan of the whole storage, because its index may have lost some.
            progress: Called with the result for each conversation; None: not called.

        Returns:
            What was done, and which conversations could not be copied: damaged, too large for the other store, or not
            found.

        Raises:
            InvalidInput: `other` is not a store, or `all_scopes` was given together with a scope or ids.
            StoreError: One of the stores cannot be used.
        """
        from chathistory.transfer.copy import CopyReport, copy_all

        selection = self._select(scope, all_scopes=all_scopes, ids=ids, full_scan=full_scan)
        report = CopyReport()
        with History(other) as target:
            for result in copy_all(selection, target.store, replace=replace, verify=verify, threads=threads):
                report.add(result)
                if progress:
                    progress(result)
        report.damaged += selection.list_damaged()
        report.all_found = selection.has_found_all(report.damaged)
        return report

    def _select(self, scope: str, *, all_scopes: bool, ids: Iterable[str] | None, full_scan: bool) -> Selection:
        """Return the selected conversations. Raise `InvalidInput` if its arguments contradict each other."""
        from chathistory.transfer.copy_sources import Selection

        if isinstance(ids, str):
            raise InvalidInput("ids: must be a list of ids, such as ['support/42'], not text")
        if all_scopes and (ids is not None or scope is not OWN_SCOPE):
            raise InvalidInput("all_scopes: cannot be given together with a scope or ids")
        selected_scope = None if all_scopes else resolve_scope(scope, self.scope)
        return Selection(self.store, selected_scope, None if ids is None else tuple(ids), full_scan)

    def export_to(
        self,
        file: File,
        *,
        scope: str = OWN_SCOPE,
        all_scopes: bool = False,
        ids: Iterable[str] | None = None,
        format: Literal["jsonl", "markdown"] | None = None,  # noqa: A002 - users expect this name
        salvage: bool = False,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write conversations into a file.

        Only a part of one conversation is in memory at a time; for Markdown, one whole conversation.

        Args:
            file: A path, or a file open for bytes. A path is created, or replaced, only when everything is written, and
                only its owner may read it. If its name ends in `.gz`, the file is gzipped.
            scope: The scope to export; the scope of the history if it is not given.
            all_scopes: Export all scopes.
            ids: Only these conversations of the scope; None: all.
            format: "jsonl": JSON lines, which `import_from` reads back exactly. "markdown": for people to read. None:
                Markdown if the name ends in `.md`, otherwise JSON lines.
            salvage: Of damaged conversations, write what can be read, with a record of the kind `record_lost` in place
                of each record that cannot be read. Otherwise they are left out.
            full_scan: Find the conversations by a scan of the whole storage, because its index may have lost some.
            progress: Called with the result for each conversation; None: not called.

        Returns:
            What was written, and which conversations were not: damaged ones, and `ids` that do not exist.

        Raises:
            InvalidInput: `all_scopes` was given together with a scope or ids, or `file` is neither a path nor a file.
            OSError: The file cannot be written.
        """
        from chathistory.transfer.import_export import ExportReport, write_jsonl
        from chathistory.transfer.markdown import write_markdown
        from chathistory.transfer.open_files import get_suffix, open_to_write

        is_markdown = format == "markdown" or (format is None and get_suffix(file) == ".md")
        selection = self._select(scope, all_scopes=all_scopes, ids=ids, full_scan=full_scan)
        report = ExportReport()
        with open_to_write(file) as out:
            for result in (write_markdown if is_markdown else write_jsonl)(selection, out, salvage=salvage):
                report.add(result)
                if progress:
                    progress(result)
        report.damaged += selection.list_damaged()
        report.all_found = selection.has_found_all(report.damaged)
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
        """Store the conversations of an export (JSON lines), or a list of messages as one conversation.

        A list of messages is JSON: a list, an object with `messages`, or one message on each line. Times and ids in
        other fields of the messages are stored, and the title of the object. If the same list is imported again, it is
        skipped; if it has grown, the conversation is continued. Conversations that exist already are handled as in
        `copy_to`. Exports can be concatenated.

        Args:
            file: A path, or a file open for bytes; gzipped or not.
            id: The id for a list of messages, which needs one; not for an export.
            scope: The scope to store all conversations in, whatever their scope in the export; the scope of the history
                if it is not given.
            all_scopes: Store each conversation of an export in the scope from which it was exported.
            replace: If another conversation is stored under the same key, delete it. Otherwise it is kept, and the
                report has the key in `different`.
            progress: Called with the result for each conversation; None: not called.

        Returns:
            What was done. Lines of the file that belong to no conversation are in `skipped`.

        Raises:
            InvalidInput: The file is incomplete; everything before is stored, and is skipped when it is imported again.
                Or the file has another format, `id` is missing or was given for an export, or `all_scopes` was given
                together with a scope.
            OSError: The file cannot be read.
        """
        from chathistory.transfer.copy import CopyReport
        from chathistory.transfer.import_export import import_file
        from chathistory.transfer.jsonl import SkippedLines
        from chathistory.transfer.open_files import open_to_read

        if all_scopes and scope is not OWN_SCOPE:
            raise InvalidInput("all_scopes: cannot be given together with a scope")
        report = CopyReport()
        scope = resolve_scope(scope, self.scope)
        with open_to_read(file) as source:
            for result in import_file(self.store, source, scope=scope, all_scopes=all_scopes, id=id, replace=replace):
                if isinstance(result, SkippedLines):
                    report.skipped.append(str(result))
                    continue
                report.add(result)
                if progress:
                    progress(result)
        return report

    # Pruning, checking and erasing.

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
        """Delete conversations of a scope that are too old or too many, and expired ones; by default only report them.

        A conversation that is changed meanwhile is kept, and so is a damaged one; the report names both.

        Args:
            scope: The scope to prune; the scope of the history if it is not given.
            age: Delete conversations that were created longer ago than this: a `timedelta`, text such as "90d", or a
                number of seconds.
            ttl: Delete conversations without activity (messages and turns) for longer than this; types as for `age`.
            count: Keep only this many conversations, the ones with the newest activity. The order is as exact as
                `traits.recency` of the store.
            dry_run: Delete nothing; only return what would be deleted. This is the default.
            full_scan: Find the conversations by a scan of the whole storage, because the listing may have lost some.
            progress: Called with each conversation that is deleted; None: not called.

        Returns:
            What was deleted, or would be, and what is kept.

        Raises:
            InvalidInput: A limit is negative or has the wrong type.
            StoreRejected: The account may not scan the storage (`full_scan`).
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
        """Check conversations for records that cannot be read or sent; nothing is changed.

        The conversations are found by a scan of the storage itself, and each is read in portions.

        Args:
            scope: The scope to check; the scope of the history if it is not given.
            all_scopes: Check all scopes.
            ids: Only these conversations of the scope; None: all. Ids that do not exist are skipped.
            progress: Called with the diagnosis of each conversation, sound ones included; None: not called.

        Returns:
            The conversations that are not sound, and what can be done about each: see `Conversation.repair` and
            `Conversation.restore`.

        Raises:
            InvalidInput: `all_scopes` was given together with a scope or ids.
        """
        from chathistory.operations.check_conversations import check_conversations

        selection = self._select(scope, all_scopes=all_scopes, ids=ids, full_scan=True)
        return check_conversations(self.store, selection.scope, selection.ids, progress)

    def erase(
        self,
        scope: str = OWN_SCOPE,
        *,
        dry_run: bool = False,
        progress: Callable[[DeletedConversation], object] | None = None,
    ) -> EraseReport:
        """Delete everything that is stored in a scope permanently, damaged and expired conversations included.

        Use it when a user asks to be forgotten, and each user has a scope. The conversations are found by a scan of the
        storage itself, not through an index that can lose entries. In the end, the storage is scanned once more: the
        report is `complete` only if nothing of the scope was found. A fork into another scope belongs to that scope,
        and is not deleted.

        Args:
            scope: The scope to erase; the scope of the history if it is not given.
            dry_run: Delete nothing; only return what would be deleted.
            progress: Called with each conversation that was deleted; None: not called.

        Returns:
            What was deleted and what is left; an empty report if the scope has no conversations.

        Raises:
            InvalidInput: The scope is not valid.
        """
        from chathistory.operations.remove_conversations import erase_scope

        return erase_scope(self.store, resolve_scope(scope, self.scope), progress, dry_run=dry_run)

    def close(self) -> None:
        """Close the store if this history opened it from a URL; a store that was given stays open."""
        if self._closes_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and open a History in the other process")
