"""Exceptions from a signal handler, at any step: the lock is released, and nothing is lost."""

import errno
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import chathistory_file
import pytest
from chathistory_file import FileStore
from file_samples import KEY, bodies_of, fill_store, flip, open_files, path_of, revision
from platforms import needs_linux

from chathistory import Head
from chathistory.errors import StoreError

pytestmark = needs_linux

PLUGIN = str(Path(chathistory_file.__file__).parent)


class Interrupted(BaseException):
    """Raised by the handler of a signal."""


def interrupted_at(step, call, *, event, module=""):
    """Call with an exception raised at that line or instruction of the plugin; return False if it has fewer of them."""
    seen = 0

    def trace(frame, kind, _):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(f"{PLUGIN}/{module}"):
            return None
        frame.f_trace_opcodes = event == "opcode"
        if kind == event:
            seen += 1
            if seen == step:
                raise Interrupted
        return trace

    struck = False

    def run():
        nonlocal struck
        sys._getframe().f_trace_opcodes = event == "opcode"  # from Python 3.12 on, one frame must ask before `settrace`
        sys.settrace(trace)
        try:
            call()
        except (Interrupted, StoreError):  # a StoreError: it struck while an error was being handled
            struck = True
        finally:
            sys.settrace(None)

    # in a thread of its own: after an exception from a tracer the interpreter may go on as if one were being handled
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return struck


def _append(store):
    head = store.read(KEY, stop=0).head
    return lambda: store.append(KEY, ["2"], after=head, revision=revision())


def _append_after_an_uncommitted_tail(store):
    with path_of(store).open("ab") as file:
        file.write(b'[1,"0000')
    return _append(store)


def _first(store):
    store.delete(KEY)
    return lambda: store.append(KEY, ["1"], after=None, revision=revision())


def _restore(store):
    flip(path_of(store), path_of(store).read_bytes().rindex(b'"end":') + 6)
    found = store.find_records(KEY)
    return lambda: store.restore_head(found, Head(KEY, found.start, found.end, revision()))


CALLS = {
    "append": _append,
    "append after an uncommitted tail": _append_after_an_uncommitted_tail,
    "the first append": _first,
    "forget": lambda store: lambda: store.forget(KEY, before=1),
    "delete": lambda store: lambda: store.delete(KEY),
    "restore": _restore,
    "remove leftovers": lambda store: lambda: store.remove_leftovers("default"),
    "listing": lambda store: lambda: store.heads("default"),
}


def check_free(store):
    """Check that the lock is free, for this store and for another one, and that the conversation is complete."""
    if any(path.startswith(f"{store.root}/default") for path in open_files()):
        gc.collect()
    assert [path for path in open_files() if path.startswith(f"{store.root}/default")] == []
    for each in (store, FileStore(store.root, lock_timeout=0.3)):
        found = each.find_records(KEY)
        if found is not None and found.problem is not None:
            each.restore_head(found, Head(KEY, found.start, found.end, revision()))
        seen = each.read(KEY, stop=0)
        head = each.append(KEY, ["x"], after=seen.head if seen else None, revision=revision())
        assert bodies_of(each)[-1] == "x"
        assert set(bodies_of(each)) <= {"1", "2", "x"}
        assert each.heads("default").items == [head]
    each.close()


def interrupt_everywhere(store, call, *, event, module="", steps=None):
    """Interrupt a call at each step, and check the result each time; returns the number of steps."""
    step = 0
    while True:
        step = next(steps, 10**9) if steps else step + 1
        store.delete(KEY)
        fill_store(store, ["1", "1"])
        if not interrupted_at(step, CALLS[call](store), event=event, module=module):
            return step
        check_free(store)


IN_EVERY_RUN = {"append", "forget"}
"""The others hold the lock in the same way; `test_after_a_kill_at_any_point_all_can_be_erased` breaks them off."""


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=[] if call in IN_EVERY_RUN else pytest.mark.wide) for call in CALLS]
)
def test_at_every_line(tmp_path, call):
    with FileStore(tmp_path / "h", lock_timeout=0.3) as store:
        assert interrupt_everywhere(store, call, event="line") > 20


@pytest.mark.usefixtures("no_sync")
def test_at_every_instruction_of_the_locks(tmp_path):
    with FileStore(tmp_path / "h", lock_timeout=0.3) as store:
        assert interrupt_everywhere(store, "append", event="opcode", module="locks") > 150


@pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")  # struck before `with` had it
@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("call", CALLS)
def test_at_every_instruction(tmp_path, call):
    with FileStore(tmp_path / "h", lock_timeout=0.3) as store:
        assert interrupt_everywhere(store, call, event="opcode") > 200


@pytest.mark.usefixtures("no_sync")
def test_signals_that_come_when_they_come(tmp_path):
    """Real ones, by a timer: most strike within an append, wherever the interpreter looks for them."""

    struck = []

    def handler(*_):
        struck.append("a signal")
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with FileStore(tmp_path / "h", lock_timeout=600) as store:
            fill_store(store, ["1", "1"])
            for number in range(400):
                call = _append(store)
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 + 0.000002 * number)
                    call()
                    while len(struck) <= number:
                        time.sleep(0.001)
                except Interrupted:
                    pass
                if number % 20 == 0:
                    check_free(store)
            check_free(store)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(struck) == 400


CODES = (errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE)
CHANGES = [call for call in CALLS if call not in {"remove leftovers", "listing"}]
FAILING = ("stat", "lstat", "fstat", "open", "pread", "fchmod", "utime", "write")
FAULTS = [
    pytest.param(call, name, CODES[(row + column) % len(CODES)], id=f"{call}-{name}")
    for row, call in enumerate(CHANGES)
    for column, name in enumerate(FAILING)
]
"""Each function of the system within each call; the errors take turns, so that each function fails with each."""


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize(("call", "name", "code"), FAULTS)
def test_no_error_of_the_system_keeps_the_lock(tmp_path, monkeypatch, call, name, code):
    for nth in range(1, 8):
        with FileStore(tmp_path / "h", lock_timeout=0.3) as store:
            store.delete(KEY)
            fill_store(store, ["1", "1"])
            calls, todo = [], CALLS[call](store)
            if nth % 2:
                store._locks.abandon()  # so the lock's file is opened again

            def failing(*args, nth=nth, calls=calls, real=getattr(os, name), **kwargs):  # noqa: B008
                calls.append(args)
                if len(calls) == nth:
                    raise OSError(code, os.strerror(code))
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, failing)
                try:
                    todo()
                except StoreError:
                    pass
                else:
                    unread = call == "delete" and name in {"pread", "fstat"}  # which deletes what cannot be read
                    assert len(calls) < nth or code == errno.ESTALE or name in {"stat", "lstat"} or unread
            check_free(store)
            if len(calls) < nth:
                return


def test_a_call_from_within_a_handler_does_not_get_in(tmp_path):
    """The thread that writes is not let in twice: what its handler of a signal wants to write waits, and is refused."""
    outcomes = []
    with FileStore(tmp_path / "h", lock_timeout=0.1) as store:
        head = fill_store(store, ["1"])

        def write(fd, data, real=os.write):
            if not outcomes and threading.current_thread() is threading.main_thread():
                outcomes.append("handler")
                try:
                    store.append(KEY, ["in between"], after=head, revision=revision())
                except StoreError as error:
                    outcomes.append(type(error).__name__)
            return real(fd, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", write)
            store.append(KEY, ["2"], after=head, revision=revision())
        assert outcomes == ["handler", "StoreUnavailable"]
        assert bodies_of(store) == ["1", "2"]
