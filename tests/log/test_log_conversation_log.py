"""The queue between threads, the guard between processes, and the time to live."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import (
    FaultyStore,
    ShortStore,
    chat_on,
    kinds_of,
    names_of,
    numbered,
    said,
    shared_names,
    texts,
    user,
)

from chathistory import History, Usage, open_store
from chathistory.errors import ConfigError, Conflict, ConversationChanged, CorruptRecord
from chathistory.log import clock as clock_module
from chathistory.log import local_state
from chathistory.log.clock import Clock, to_datetime, use_clock
from chathistory.trimming import LastTurns

NAME = "test-core-journal"
SECOND = 1_000_000


@pytest.fixture
def pair():
    """Return one conversation as two processes see it: from two stores of one name."""
    with shared_names(NAME), open_store(f"memory:{NAME}") as one, open_store(f"memory:{NAME}") as two:
        yield chat_on(one), chat_on(two)


@pytest.mark.parametrize("histories", [1, 5])
def test_threads_of_one_process_queue(histories):
    with open_store("memory:") as store:
        opened = [History(store) for _ in range(histories)]
        gate = threading.Barrier(16)

        def work(number):
            chat = opened[number % histories].conversation("c")
            gate.wait()
            for round_ in range(20):
                chat.append([user(f"{number}/{round_}"), said(f"{number}/{round_}")])

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        found = texts(chat_on(store).last_messages(10_000))
        assert found[::2] == found[1::2]
        assert sorted(found[::2]) == sorted(f"{number}/{round_}" for number in range(16) for round_ in range(20))
        for number in range(16):
            own = [text for text in found[::2] if text.startswith(f"{number}/")]
            assert own == [f"{number}/{round_}" for round_ in range(20)]


def test_a_message_in_between_is_a_conflict_until_it_was_read(pair):
    one, two = pair
    one.append(user("first"))
    two.state()
    two.append(said("theirs"))
    for _ in range(2):
        with pytest.raises(Conflict) as conflict:
            one.append(user("blind"))
        assert conflict.value.head.end == 2
    assert one.state().totals.messages == 2
    one.append(user("knowing"))
    assert texts(two.last_messages(9)) == ["first", "theirs", "knowing"]


@pytest.mark.parametrize("look", ["messages", "view", "state", "last_messages", "last_entries", "entries"])
def test_every_read_makes_the_head_known(pair, look):
    one, two = pair
    one.append(user("first"))
    two.state()
    two.append(said("theirs"))
    arguments = (5,) if look in ("last_messages", "last_entries") else ()
    found = getattr(one, look)(*arguments)
    if look == "entries":
        assert len(list(found)) == 2
    one.append(user("knowing"))


def test_two_writers_create_the_conversation(pair):
    one, two = pair
    assert one.state() is None
    two.append(user("theirs"))
    with pytest.raises(Conflict):
        one.append(user("mine"))
    assert texts(two.last_messages(9)) == ["theirs"]


def test_an_annotation_in_between_is_no_conflict(pair):
    one, two = pair
    one.append(user("first"))
    two.annotate(title="theirs", tags=["a"])
    two.set_metadata({"n": 1})
    head = one.append(said("mine"))
    assert head.end == 4
    assert names_of(one) == ("theirs", ("a",), {"n": 1})
    assert one.state().totals.messages == 2


def test_an_annotation_may_follow_unread_messages_but_the_next_message_may_not(pair):
    one, two = pair
    one.append(user("first"))
    two.state()
    two.append(said("theirs"))
    one.set_title("mine")
    one.set_tags(["mine"])
    assert names_of(one)[0] == "mine"
    for _ in range(2):
        with pytest.raises(Conflict):
            one.append(user("blind"))
    one.state()
    one.append(user("knowing"))
    assert kinds_of(two) == ["message", "message", "annotation", "annotation", "message"]
    assert two.state().annotations.title == "mine"


def test_an_annotation_does_not_conflict_with_a_conversation_that_others_created(pair):
    one, two = pair
    assert one.log.known_head() is None
    two.append(user("theirs"))
    one.set_title("mine")
    two.state()
    assert (names_of(two)[0], texts(two.last_messages(9))) == ("mine", ["theirs"])
    with pytest.raises(Conflict):
        one.append(user("blind"))


def test_a_rewind_or_a_delete_in_between_is_a_conflict(pair):
    one, two = pair
    one.append([user("a"), said("b")])
    two.rewind(to=1)
    with pytest.raises(Conflict):
        one.append(user("blind"))
    one.state()
    two.log.delete()
    for step in (lambda: one.append(user("blind")), lambda: one.annotate(title="blind")):
        with pytest.raises(ConversationChanged):  # the records that would tell whether it was stored are gone
            step()
    two.append([user("another"), said("b"), user("c")])
    for step in (lambda: one.append(user("blind")), lambda: one.annotate(title="blind")):
        with pytest.raises(Conflict):
            step()
    assert texts(two.last_messages(9)) == ["another", "b", "c"]


@pytest.mark.parametrize(("times", "stored"), [(5, True), (25, False)])
def test_rebasing_ends_after_some_attempts(times, stored):
    """Endless annotations of others do not block a writer: after some retries it is a conflict."""
    with shared_names(NAME), FaultyStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append(user("first"))
        two.state()

        def annotated(call):
            two.annotate(title="again")
            return call()

        store.on_append = iter([annotated] * times)
        if stored:
            assert one.append(said("mine")).end == 2 + times
            return
        with pytest.raises(Conflict):
            one.append(said("mine"))
        assert two.state().totals.messages == 1
        store.clear_faults()
        one.append(said("mine"))


def test_records_that_are_forgotten_while_the_last_ones_are_read_are_a_conflict():
    with shared_names(NAME), FaultyStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append([user(str(number)) for number in range(100)])
        one.log.append([make_entry("annotation", data={"title": str(number)}) for number in range(20)])

        def forgotten(call):
            two.forget(before=95)
            return call()

        store.on_read = iter([None, forgotten])
        with pytest.raises(Conflict):
            one.last_messages(50)


def test_an_append_to_a_conversation_deleted_and_created_again_meanwhile_is_a_conflict():
    with shared_names(NAME), FaultyStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append(user("a"))

        def replaced(call):
            two.log.delete()
            try:
                call()
            finally:  # the refusal says that there is no conversation, and then there is one again
                two.append([user("another"), said("b")])

        store.on_append = iter([replaced])
        with pytest.raises(Conflict) as conflict:
            one.append(said("mine"))
        assert conflict.value.head is None
        assert texts(two.last_messages(9)) == ["another", "b"]


def test_a_conversation_deleted_after_damage_was_found_is_empty():
    with shared_names(NAME), FaultyStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        chat = chat_on(store)
        chat.append([user("a"), said("b")])

        def damaged(_):
            chat_on(elsewhere).log.delete()
            raise CorruptRecord(chat.log.key, 1, "it is hurt")

        store.on_read = iter([damaged])
        assert chat.messages() == []


def test_records_that_are_forgotten_while_damage_is_skipped_are_a_conflict():
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        chat = chat_on(store)
        numbered(chat, 10)
        chat.state()
        store.arm(lambda: chat_on(elsewhere).forget(before=8))
        found = []
        with pytest.raises(Conflict):
            found.extend(chat.salvage())
        assert len(found) <= 3, "no record after the forgotten ones is returned as if nothing were missing"


def test_identical_texts_are_two_messages(pair):
    one, two = pair
    one.append([user("yes"), user("yes")])
    one.append(user("yes"))
    assert texts(two.last_messages(9)) == ["yes"] * 3
    assert len({entry.id for entry in two.entries()}) == 3


def test_messages_appended_while_the_last_ones_are_read_stay_unread():
    """Reading in several round trips must not mark messages as read that it does not return."""
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append([user(str(number)) for number in range(60)])
        two.state()
        one.rewind(to=50)
        two.state()
        appended = []
        store.arm(lambda: appended.append(two.append(said("theirs"))))
        assert "theirs" not in texts(one.last_messages(30))
        assert appended
        with pytest.raises(Conflict):
            one.append(user("blind"))


def test_a_conversation_created_again_while_it_is_read_is_not_mixed():
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append([user("old")] * 10)

        def again():
            two.log.delete()
            two.append([user("new")] * 10)

        store.arm(again)
        with pytest.raises(Conflict):
            texts(one.messages())


def test_a_range_forgotten_while_it_is_read_is_a_conflict():
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append([user(str(number)) for number in range(10)])
        store.arm(lambda: two.forget(before=8))
        with pytest.raises(Conflict):
            list(one.entries())


def test_what_is_appended_while_it_is_read_is_left_out():
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        one, two = chat_on(store), chat_on(elsewhere)
        one.append([user(str(number)) for number in range(10)])
        two.state()
        store.arm(lambda: two.append(said("later")))
        assert texts(one.messages()) == [str(number) for number in range(10)]
        with pytest.raises(Conflict):
            one.append(user("blind"))


def list_local_states(store):
    return [key for place, key in local_state._local_states if place == id(store)]


def test_local_states_are_released():
    store = open_store("memory:")
    for number in range(200):
        chat_on(store, str(number)).append(user("x"))
    gc.collect()
    assert list_local_states(store) == []
    kept = chat_on(store, "kept")
    assert kept.log.lock is chat_on(store, "kept").log.lock
    assert list_local_states(store) == [kept.log.key]
    gone = weakref.ref(store)
    del kept, store
    gc.collect()
    assert gone() is None


@dataclass
class ValueStore(MemoryStore):
    """A store that somebody wrote as a dataclass: it compares by value, so it cannot be hashed."""

    name: str

    def __post_init__(self):
        super().__init__(self.name)


def test_a_forked_child_gets_a_lock_that_no_thread_holds(monkeypatch):
    monkeypatch.setattr(local_state, "_local_states_lock", threading.Lock())
    local_state._local_states_lock.acquire()
    local_state._renew_lock()
    assert not local_state._local_states_lock.locked()
    with MemoryStore() as store:
        assert chat_on(store).append(user("in the child")).end == 1


def test_a_store_need_not_be_hashable():
    with ValueStore("") as store, ValueStore("") as equal:
        chat_on(store).append(user("x"))
        assert texts(chat_on(store).last_messages(1)) == ["x"]
        assert chat_on(equal).last_messages(1) == []


class ManualClock:
    """What a clock shows, set by a test."""

    def __init__(self):
        self.time = 1_800_000_000 * SECOND
        self.elapsed = 0

    def go(self, seconds):
        """Let time pass."""
        self.time += int(seconds * SECOND)
        self.elapsed += int(seconds * SECOND)

    def jump(self, seconds):
        """Set the clock on the wall, while no time passes."""
        self.time += int(seconds * SECOND)


@pytest.fixture
def clock():
    hands = ManualClock()
    with use_clock(Clock(wall=lambda: hands.time, elapsed=lambda: hands.elapsed)):
        yield hands


@pytest.fixture
def brief(clock):
    """Two processes, and conversations that live ten seconds."""
    with (
        shared_names(NAME),
        open_store(f"memory:{NAME}", ttl=10) as one,
        open_store(f"memory:{NAME}?ttl=10") as two,
    ):
        yield one, two


def test_an_expired_conversation_is_absent_everywhere(brief, clock):
    store, _ = brief
    chat = chat_on(store)
    chat.append([user("old"), said("old")])
    chat.set_title("old")
    clock.go(9.999)
    assert texts(chat.messages()) == ["old", "old"]
    assert len(History(store).list().items) == 1
    clock.go(0.001)
    for fresh in (chat, chat_on(store)):
        assert fresh.messages() == []
        assert fresh.view().report.kept == ()
        assert fresh.last_messages(5) == []
        assert fresh.last_entries(5) == []
        assert list(fresh.entries()) == []
        assert fresh.state() is None
        assert fresh.state() is None
        assert (names_of(fresh), fresh.usage()) == ((None, (), {}), Usage())
        assert fresh.forget(before=1) is None
        assert fresh.repair(dry_run=False) == ()
    assert History(store).list().items == []
    assert History(store).delete("c") is None


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("step", ["append", "annotate"])
def test_appending_to_an_expired_conversation_creates_another(brief, clock, looked, step):
    store, elsewhere = brief
    chat, stale = chat_on(store), chat_on(elsewhere)
    chat.append([user("old"), said("old")])
    stale.state()
    clock.go(10)
    if looked:
        assert chat.state() is None
    head = chat.append(user("new")) if step == "append" else chat.annotate(title="new")
    assert (head.start, head.end) == (0, 1)
    assert (chat.state().totals.messages, names_of(chat)[0]) == ((1, None) if step == "append" else (0, "new"))
    with pytest.raises(Conflict):
        stale.append(user("blind"))
    assert len(list(chat.entries())) == 1


def test_the_time_to_live_begins_again_with_every_message(brief, clock):
    store, _ = brief
    chat = chat_on(store)
    for number in range(5):
        chat.append(user("a"))
        clock.go(9)
        chat.annotate(title=str(number))
    assert texts(chat.messages()) == ["a"] * 5
    clock.go(0.5)
    chat.append(user("a"))
    [row] = History(store).list().items
    assert (row.expires - row.updated).total_seconds() == 10
    clock.go(10)
    assert chat.messages() == []


def test_an_expired_conversation_that_another_process_created_again(brief, clock):
    store, elsewhere = brief
    one, two = chat_on(store), chat_on(elsewhere)
    one.append(user("old"))
    two.state()
    clock.go(10)
    two.append(user("new"))
    with pytest.raises(Conflict):
        one.append(user("blind"))
    one.state()
    one.append(said("knowing"))
    assert texts(two.last_messages(9)) == ["new", "knowing"]


def test_a_page_is_filled_past_expired_conversations(brief, clock):
    store, _ = brief
    with open_store(f"memory:{NAME}") as permanent:
        for number in range(30):
            clock.go(0.001)
            chat_on(store if number % 3 else permanent, f"{number:02}").append(user("x"))
        clock.go(10)
        history = History(store)
        assert [row.id for row in history.list(limit=4).items] == ["27", "24", "21", "18"]
        walked, after = [], None
        while True:
            page = history.list(limit=3, after=after)
            walked += [row.id for row in page.items]
            if page.next is None:
                break
            assert len(page.items) == 3
            after = page.next
        assert walked == [f"{number:02}" for number in range(27, -1, -3)]


@pytest.mark.parametrize("limit", [2, 3, 5, 7])
def test_no_page_has_more_than_the_limit(brief, clock, limit):
    store, _ = brief
    with open_store(f"memory:{NAME}") as permanent:
        unexpired = [number for number in range(40) if number * number % 7 in (1, 2)]
        for number in range(40):
            clock.go(0.001)
            chat_on(permanent if number in unexpired else store, str(number)).append(user("x"))
        clock.go(10)
        walked, after = [], None
        while True:
            page = History(store).list(limit=limit, after=after)
            assert len(page.items) == limit or (len(page.items) < limit and page.next is None)
            walked += [int(row.id) for row in page.items]
            if (after := page.next) is None:
                break
        assert walked == unexpired[::-1]


def test_updated_never_goes_back_when_the_clock_jumps_back(clock):
    with open_store("memory:") as store:
        chat = chat_on(store)
        times = []
        for jump in (0, -3600, 0, -3600, 7201):
            clock.jump(jump)
            times.append(chat.append(user("x")).updated)
        assert times == [times[0]] * 4 + [to_datetime(clock.time)]


QUIET = {
    "title": lambda chat: chat.annotate(title="t"),
    "tags": lambda chat: chat.annotate(tags=["t"]),
    "cut": lambda chat: chat.trim(LastTurns(1, 1)),
    "rewind": lambda chat: chat.rewind(to=4),
    "thinking_policy": lambda chat: chat.set_drop_stale_thinking(drop=True),
    "forget": lambda chat: chat.forget(before=1),
    "setup": lambda chat: chat.log.append([make_entry("setup", data={"fingerprints": {"model": "m"}})]),
    "repair": lambda chat: (chat._log.store.damage(chat, 2), chat.repair(dry_run=False)),
}
SAID = {
    "message": lambda chat: chat.append(user("x")),
    "turn_opened": lambda chat: chat.log.append([make_entry("turn_opened", turn="t", data={"lease_until": 1})]),
    "turn_abandoned": lambda chat: chat.log.append([make_entry("turn_abandoned", turn="t")]),
    "reply_interrupted": lambda chat: chat.log.append([make_entry("reply_interrupted", message=said("x"))]),
    "reply_orphaned": lambda chat: chat.log.append([make_entry("reply_orphaned", message=said("x"))]),
    "with a title": lambda chat: chat.log.append([make_entry("annotation"), make_entry("message", message=user("x"))]),
}


class DamagedStore(MemoryStore):
    """A store in which a record can be damaged."""

    def damage(self, chat, position):
        bodies = self._data.scopes[chat.scope][chat.id].bodies
        bodies[position] += " "


@pytest.mark.parametrize("ttl", [None, 100])
@pytest.mark.parametrize("step", [*QUIET, *SAID])
def test_only_messages_and_turns_are_activity(clock, step, ttl):
    with DamagedStore() as store:
        store.ttl = ttl
        chat = chat_on(store)
        for number in range(3):
            chat.append([user(f"{number}"), said(f"{number}")])
        before = chat.log.refresh()
        clock.go(50)
        (QUIET | SAID)[step](chat)
        after = chat.log.refresh()
        assert after.revision.version != before.revision.version
        moved = 50 * SECOND if step in SAID else 0
        assert after.revision.updated - before.revision.updated == moved
        assert (after.revision.expires or 0) - (before.revision.expires or 0) == (moved if ttl else 0)


def test_a_listing_is_ordered_by_activity(clock):
    with DamagedStore() as store:
        for name in "abc":
            clock.go(1)
            chat_on(store, name).append(user(name))
        clock.go(1)
        chat_on(store, "a").annotate(title="by a job at night")
        chat_on(store, "b").forget(before=0)
        assert [row.id for row in History(store).list().items] == ["c", "b", "a"]


@pytest.mark.parametrize("steps", [(365 * 86_400,), (-365 * 86_400, 2 * 365 * 86_400), (20, 20, 20)])
def test_a_clock_that_jumps_ahead_lets_nothing_expire(brief, clock, steps):
    """Not even where something else is to begin in its place, and not by `retain`."""
    store, _ = brief
    chat = chat_on(store)
    chat.append(user("mine"))
    for jump in steps:
        clock.jump(jump)
    assert texts(chat_on(store).messages()) == ["mine"]
    done = History(store).prune(ttl=timedelta(days=30), age=timedelta(days=30), dry_run=False)
    assert (done.kept, done.removed) == (1, ())
    chat_on(store).append(said("more"))
    assert texts(chat.messages()) == ["mine", "more"]
    clock.go(9)
    assert len(chat_on(store).messages()) == 2


def test_the_time_to_live_is_right_after_the_clock_jumped_back(brief, clock):
    store, _ = brief
    chat = chat_on(store)
    clock.jump(-365 * 86_400)
    chat.append(user("mine"))
    clock.jump(365 * 86_400)
    clock.go(9)
    assert texts(chat.messages()) == ["mine"]
    clock.go(1)
    assert chat.messages() == []


def test_a_conversation_of_a_machine_that_is_years_ahead_is_listed_and_continued(clock):
    with open_store("memory:") as store:
        chat_on(store, "now").append(user("x"))
        clock.jump(200 * 365 * 86_400)
        chat_on(store, "ahead").append(user("x"))
        clock.jump(-200 * 365 * 86_400)
        chat = chat_on(store, "ahead")
        ahead = chat.state() and chat.log.last_head.revision.updated
        assert chat.append(said("y")).updated == to_datetime(ahead)
        rows = History(store).list().items
        assert [(row.id, row.updated.year) for row in rows] == [("ahead", 2226), ("now", 2027)]


@pytest.mark.parametrize("time", [-1, -(10**30), 10**30])
def test_a_clock_beyond_all_calendars_does_not_refuse_a_message(clock, time):
    clock.time = time
    with open_store("memory:", ttl=3e9) as store:
        chat_on(store).append(user("x"))
        assert [row.messages for row in History(store).list().items] == [1]


@pytest.mark.parametrize("ttl", [1e12, 1e300, "1e18"])
def test_a_time_to_live_beyond_all_calendars_is_refused(ttl):
    with pytest.raises(ConfigError, match="'ttl'"):
        open_store("memory:", ttl=ttl)


def test_a_time_to_live_of_a_lifetime_does_not_break_listings():
    with open_store("memory:", ttl=3e9) as store:
        chat_on(store).append(user("x"))
        assert [row.id for row in History(store).list().items] == ["c"]


def test_time_passes_where_the_system_has_no_clock_that_counts_sleep(monkeypatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 7_000_999)
    assert clock_module._read_elapsed() == 7000
