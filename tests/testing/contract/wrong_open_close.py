"""Stores with mistakes in opening, closing, forking, and second instances."""

from __future__ import annotations

import os
from dataclasses import replace

from wrong_stores import Wrong, caught_by

from chathistory.errors import StoreClosed
from chathistory.storage.values import Key, Revision


@caught_by("test_every_method_of_a_closed_store_raises_store_closed", "test_a_with_block_closes_the_store")
class OpenAfterClose(Wrong):
    def close(self):
        pass


@caught_by("test_every_method_of_a_closed_store_raises_store_closed")
class KeysAfterClose(Wrong):
    def keys(self, scope=None):
        try:
            yield from super().keys(scope)
        except StoreClosed:
            return


@caught_by("test_closing_twice_does_nothing", "test_an_unused_store_can_be_closed")
class ClosesOnce(Wrong):
    def close(self):
        self._open_guard.check()
        super().close()


@caught_by("test_a_used_store_raises_store_closed_in_a_forked_child")
class OpenAfterFork(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self._open_guard.check = lambda: None if self._open_guard._open else super().check()


@caught_by("test_a_used_store_raises_store_closed_in_a_forked_child")
class DiesInAChild(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self.process = os.getpid()

    def read(self, key, *, start=0, stop=None):
        if os.getpid() != self.process:
            os._exit(1)
        return super().read(key, start=start, stop=stop)


@caught_by("test_closing_one_instance_leaves_the_other_open")
class ClosesAll(Wrong):
    lines = {}  # noqa: RUF012

    def __init__(self, name):
        super().__init__(name)
        self._open_guard = self.lines.setdefault(name, self._open_guard)


@caught_by(
    "test_two_instances_see_each_others_writes_at_once",
    "test_everything_is_stored_after_close_and_reopen",
    "test_every_instance_sees_each_write_at_once",
)
class Private(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self._data = type(self._data)()


@caught_by("test_what_was_removed_stays_removed_after_reopen", "test_two_instances_see_each_others_writes_at_once")
class ForgetsForItselfOnly(Wrong):
    def forget(self, key, *, before):
        head = self.present_head(key)
        self.__dict__.setdefault("starts", {})[key] = before
        return head and replace(head, start=min(max(before, head.start), head.end))

    def read(self, key, *, start=0, stop=None):
        before = getattr(self, "starts", {}).get(key, 0)
        run = super().read(key, start=max(start, before) if start >= 0 else start, stop=stop)
        low = run and min(max(before, run.head.start), run.head.end)
        return run and replace(run, head=replace(run.head, start=low))


@caught_by("test_check_of_an_open_store_returns_and_leaves_nothing")
class CheckLeavesSomething(Wrong):
    def check(self):
        super().check()
        self.append(Key("default", "probe"), ["probe"], after=None, revision=Revision("probe", 0))


@caught_by("test_an_unused_store_works_in_a_forked_child")
class OfTheProcessThatMadeIt(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self._open_guard.check()
