"""Wrong in what is open, what is closed, and what a second instance sees."""

from __future__ import annotations

import os
from dataclasses import replace

from wrong_stores import Wrong, caught_by

from chathistory.errors import StoreClosed
from chathistory.storage.values import Key, Revision


@caught_by("test_a_closed_store_refuses", "test_a_with_block_closes")
class OpenAfterClose(Wrong):
    def close(self):
        pass


@caught_by("test_a_closed_store_refuses")
class KeysAfterClose(Wrong):
    def keys(self, scope=None):
        try:
            yield from super().keys(scope)
        except StoreClosed:
            return


@caught_by("test_closing_twice_does_nothing", "test_closing_an_unused_store")
class ClosesOnce(Wrong):
    def close(self):
        self._open_guard.check()
        super().close()


@caught_by("test_a_forked_child_is_refused_and_the_parent_goes_on")
class OpenAfterFork(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self._open_guard.check = lambda: None if self._open_guard._open else super().check()


@caught_by("test_a_forked_child_is_refused_and_the_parent_goes_on")
class DiesInAChild(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self.process = os.getpid()

    def read(self, key, *, start=0, stop=None):
        if os.getpid() != self.process:
            os._exit(1)
        return super().read(key, start=start, stop=stop)


@caught_by("test_closing_one_leaves_the_other_open")
class ClosesAll(Wrong):
    lines = {}  # noqa: RUF012

    def __init__(self, name):
        super().__init__(name)
        self._open_guard = self.lines.setdefault(name, self._open_guard)


@caught_by(
    "test_each_sees_at_once_what_the_other_does",
    "test_all_is_there_after_close_and_reopen",
    "test_each_instance_sees_at_once_what_any_of_them_did",
)
class Private(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self._data = type(self._data)()


@caught_by("test_what_was_removed_stays_removed_after_reopen", "test_each_sees_at_once_what_the_other_does")
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


@caught_by("test_check_of_an_open_store_returns")
class CheckLeavesSomething(Wrong):
    def check(self):
        super().check()
        self.append(Key("default", "probe"), ["probe"], after=None, revision=Revision("probe", 0))


@caught_by("test_a_store_that_was_not_used_survives_a_fork")
class OfTheProcessThatMadeIt(Wrong):
    def __init__(self, name):
        super().__init__(name)
        self._open_guard.check()
