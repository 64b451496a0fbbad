"""Stores with a mistake in read, heads or keys."""

from __future__ import annotations

import time
from dataclasses import replace

from wrong_stores import Wrong, caught_by

from chathistory.errors import InvalidInput
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.values import Head, Page, ReadResult, Revision


@caught_by("test_read_returns_head_and_records_of_one_moment")
class TwoMoments(Wrong):
    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        time.sleep(0.0005)
        return run and ReadResult(self.present_head(key) or run.head, run.records)


class Reading(Wrong):
    """Changes each run on its way out."""

    def change(self, records):
        raise AssertionError

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        return run and ReadResult(run.head, self.change(run.records))


RANGES = "test_read_returns_the_start_of_every_range"
MANY = "test_read_returns_any_range_of_many_records"
RUNS = (MANY, "test_append_continues_after_the_last_batch")


@caught_by(RANGES, *RUNS)
class ShortWithAGap(Reading):
    def change(self, records):
        return records if len(records) < 4 else records[:1] + records[2:]


@caught_by(RANGES, *RUNS)
class ShortFromTheWrongSide(Reading):
    def change(self, records):
        return records[-4:]


@caught_by(RANGES, *RUNS)
class ShortAndEmpty(Reading):
    def change(self, records):
        return records if len(records) < 4 else []


@caught_by("test_read_leaves_no_gap_in_much_text")
class HeavyRunIsEmpty(Reading):
    def change(self, records):
        return records if sum(len(record.body) for record in records) < 1_000_000 else []


@caught_by(RANGES, *RUNS)
class Backwards(Reading):
    def change(self, records):
        return records[::-1]


@caught_by(RANGES, MANY)
class StopIncluded(Wrong):
    def read(self, key, *, start=0, stop=None):
        return super().read(key, start=start, stop=stop if stop is None else stop + 1)


@caught_by(RANGES)
class StopCountsFromTheEnd(Wrong):
    def read(self, key, *, start=0, stop=None):
        present = self.present_head(key)
        return super().read(key, start=start, stop=present.end + stop if present and (stop or 0) < 0 else stop)


@caught_by(RANGES)
class TailOfTheRange(Wrong):
    def read(self, key, *, start=0, stop=None):
        present = self.present_head(key)
        if present and start < 0 and stop is not None:
            start = max(min(stop, present.end) + start, 0)
        return super().read(key, start=start, stop=stop)


@caught_by("test_read_of_an_unknown_conversation_returns_none")
class UnknownIsEmpty(Wrong):
    def read(self, key, *, start=0, stop=None):
        return super().read(key, start=start, stop=stop) or ReadResult(Head(key, 0, 0, Revision("x", 0)), [])


@caught_by("test_read_finds_a_conversation_without_records")
class EmptyIsUnknown(Wrong):
    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        return run if run and run.head.start < run.head.end else None


class Listed(Wrong):
    """Lists by an order, and with cursors, of its own."""

    def order(self, head):
        return head.revision.updated, head.key.id

    def rest(self, heads, after):
        last = decode_cursor(after)
        return [head for head in heads if (head.revision.updated, head.key.id) < last]

    def heads(self, scope, *, after=None, limit=20):
        super().heads(scope, after=after, limit=limit)  # for its checks
        heads = sorted(self.all_heads(scope), key=self.order, reverse=True)
        rest = self.rest(heads, after) if after else heads
        return Page(rest[:limit], encode_cursor(rest[limit - 1]) if len(rest) > limit else None)


@caught_by("test_heads_orders_times_as_numbers_of_microseconds")
class TimesAsText(Listed):
    def order(self, head):
        return str(head.revision.updated), head.key.id


@caught_by("test_heads_orders_times_as_numbers_of_microseconds", "test_heads_lists_the_latest_write_first")
class TimesToTheSecond(Listed):
    def order(self, head):
        return head.revision.updated // 1_000_000, head.key.id


@caught_by("test_heads_lists_the_latest_write_first")
class OldestFirst(Listed):
    def order(self, head):
        return -head.revision.updated, head.key.id


@caught_by("test_heads_orders_equal_times_by_id")
class TiesInUTF16(Listed):
    def order(self, head):
        return head.revision.updated, head.key.id.encode("utf-16-be")


@caught_by("test_heads_orders_equal_times_by_id")
class TiesDropped(Listed):
    def rest(self, heads, after):
        return [head for head in heads if head.revision.updated < decode_cursor(after)[0]]


class Paged(Wrong):
    """Changes each page on its way out."""

    def change(self, page, limit):
        raise AssertionError

    def heads(self, scope, *, after=None, limit=20):
        return self.change(super().heads(scope, after=after, limit=limit), limit)


@caught_by(
    "test_pages_list_each_conversation_once_and_end",
    "test_heads_and_keys_list_250_conversations",
    "test_a_page_has_at_most_20_heads_by_default",
)
class OnePageOnly(Paged):
    def change(self, page, limit):
        return Page(page.items)


@caught_by("test_pages_list_each_conversation_once_and_end")
class OnePageMore(Paged):
    def change(self, page, limit):
        return Page(page.items, page.next or (encode_cursor(page.items[-1]) if len(page.items) == limit else None))


@caught_by("test_heads_and_keys_list_250_conversations")
class AtMostAHundred(Paged):
    def change(self, page, limit):
        return Page(page.items[:100], page.next)


@caught_by("test_a_cursor_is_text_that_is_safe_in_a_url")
class CursorWithSlash(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after and after.removeprefix("/?"), limit=limit)
        return Page(page.items, page.next and "/?" + page.next)


@caught_by("test_a_foreign_cursor_is_refused")
class AnyCursorAccepted(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        try:
            return super().heads(scope, after=after, limit=limit)
        except InvalidInput:
            if limit < 1:
                raise
            return super().heads(scope, limit=limit)


@caught_by("test_a_limit_below_one_is_refused")
class NoLimitChecked(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        return super().heads(scope, after=after, limit=max(limit, 1))


@caught_by("test_pages_list_each_conversation_once_and_end")
class LimitIgnored(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        return super().heads(scope, after=after, limit=limit + 1 if limit > 0 else limit)


@caught_by("test_pages_list_unwritten_conversations_once_during_writes")
class CursorByOffset(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        offset = decode_cursor(after)[0] if after else 0
        heads = super().heads(scope, limit=10_000).items
        page = heads[offset : offset + limit]
        more = (
            encode_cursor(replace(page[0], revision=Revision("", offset + limit)))
            if len(heads) > offset + limit
            else None
        )
        return Page(page or super().heads(scope, limit=limit).items, more)


@caught_by("test_pages_list_unwritten_conversations_once_during_writes")
class CursorByName(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        names = [head.key.id for head in super().heads(scope, limit=10_000).items]
        last = decode_cursor(after)[1] if after else None
        if last and last not in names:
            return Page([])
        return super().heads(scope, after=after, limit=limit)


@caught_by("test_heads_lists_the_current_head")
class ListingForgetsTheStart(Paged):
    def change(self, page, limit):
        return Page([replace(head, start=0) for head in page.items], page.next)


@caught_by("test_heads_lists_the_current_head", "test_forget_from_the_end_on_removes_all_records")
class EmptyNotListed(Paged):
    def change(self, page, limit):
        return Page([head for head in page.items if head.start < head.end], page.next)


@caught_by(
    "test_every_method_finds_a_deleted_conversation_absent", "test_a_conversation_can_be_created_and_deleted_repeatedly"
)
class DeletedStaysListed(Wrong):
    def delete(self, key, *, version=None):
        head = self.present_head(key)
        deleted = super().delete(key, version=version)
        self.__dict__.setdefault("gone", []).extend([head] if deleted else [])
        return deleted

    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        return Page([*page.items, *getattr(self, "gone", [])][:limit], page.next)


@caught_by("test_keys_yields_each_conversation_once")
class KeysRepeat(Wrong):
    def keys(self, scope=None):
        keys = list(super().keys(scope))
        return iter(keys + keys[:1] if len(keys) > 10 else keys)


@caught_by("test_keys_yields_each_conversation_once")
class KeysOfAllScopes(Wrong):
    def keys(self, scope=None):
        return super().keys()
