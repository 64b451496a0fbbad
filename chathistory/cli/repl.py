"""The prompt of `chathistory chat`: replies as they come, and what else can be typed there."""

from __future__ import annotations

import re
import sys

from chathistory.cli.errors import is_known, report
from chathistory.cli.escape import show_controls
from chathistory.cli.render import (
    FAKE_MODEL,
    describe_mark,
    format_body,
    load_readable,
    local_time,
    make_console,
    name_speaker,
)
from chathistory.cli.turn import NOTES, make_writer, play_turn
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine, ReplyStream
from chathistory.log.lease import lease_end

__all__ = ["Prompt"]

REDRAWN = 6
_LATELY = 4  # entries among which the last message is: a reply that broke off may follow it
_COMMAND = re.compile(r"/[a-z]+")
_HELP = """\
/retry     send the last message again, if it has no reply
/abandon   give up a reply that another process still waits for
/quit      end (so do Ctrl-D, and Ctrl-C here); Ctrl-C during a reply stops that reply only
Anything else is sent. What you paste is one message, however many lines it has."""
_PAUSED = "no reply to the last message yet: /retry sends it again, or say something new"


class Prompt:
    """A prompt on the terminal for one conversation. name: who replies; debug: show tracebacks."""

    def __init__(self, engine: ChatEngine, conversation: Conversation, *, name: str, debug: bool) -> None:
        self._engine = engine
        self._conversation = conversation
        self._name = name
        self._debug = debug
        self._console = make_console()

    def run(self) -> None:
        """Print the last turns, then prompt and reply until the user ends it."""
        self._print_last()
        _prepare_prompt()
        while (words := self._read_line()) not in (None, "/quit", "/exit"):
            try:
                self._answer(words or "")
            except Exception as error:
                if not is_known(error):
                    raise
                report(error, debug=self._debug)
                if self._is_unanswered():
                    self._note(_PAUSED)

    def _read_line(self) -> str | None:
        """Return what the user types, without blanks around it; None: the user wants to end."""
        try:
            return input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            self._console.print()
            return None

    def _answer(self, words: str) -> None:
        """Do what is typed: a command, or a message to send."""
        id = self._conversation.id
        if words == "/help":
            self._note(_HELP)
        elif words == "/retry":
            self._play(self._engine.stream_resumed(id))
        elif words == "/abandon":
            was_open = self._engine.abandon(id)
            self._note(_PAUSED if was_open else "no other process waits for a reply here")
        elif _COMMAND.fullmatch(words):
            self._note(f"unknown command {words}; /help lists the commands")
        elif words:
            self._play(self._engine.stream(id, words))

    def _play(self, stream: ReplyStream) -> None:
        self._print_name(self._name)
        write = make_writer()
        try:
            reply = play_turn(stream, lambda piece: write(show_controls(piece)))
        except BaseException as error:
            self._console.print()
            if not isinstance(error, KeyboardInterrupt):
                raise
            last = next(self._conversation.entries(-1), None)
            is_saved = last is not None and last.kind == "interrupted"
            what = "what came is saved, but not sent again" if is_saved else "nothing had come yet"
            self._note(f"stopped; {what}. /retry sends your message again, or say something new")
        else:
            self._console.print()
            if reply.stop_reason in NOTES:
                self._note(NOTES[reply.stop_reason])

    def _print_last(self) -> None:
        entries = load_readable(self._conversation, REDRAWN)
        for entry in entries:
            self._print_name(name_speaker(entry))
            self._console.out(format_body(entry), highlight=False)
            if mark := describe_mark(entry):
                self._note(f"[{mark}]")
        summary = self._conversation.state()
        if summary and summary.engine.open_turn and lease_end(summary.engine.open_turn):
            asked = next((local_time(entry.at) for entry in reversed(entries) if entry.kind == "message"), "before")
            self._note(f"another process waits for a reply since {asked}; /abandon gives that reply up")
        elif self._is_unanswered():
            self._note(_PAUSED)

    def _is_unanswered(self) -> bool:
        """Whether the last message can be sent again: it has no reply, and the API did not refuse it."""
        last = self._conversation.last_messages(1)
        if not last or last[-1]["role"] != "user":
            return False
        kinds = [entry.kind for entry in load_readable(self._conversation, _LATELY)]
        said = [kind for kind in kinds if kind in ("message", "refused")]
        return not said or said[-1] == "message"

    def _print_name(self, name: str) -> None:
        style = {"you": "bold", FAKE_MODEL: "bold yellow"}.get(name, "bold cyan")
        self._console.out(f"{name}> ", style=style, end="")
        sys.stdout.flush()

    def _note(self, text: str) -> None:
        self._console.out(text, style="dim", highlight=False)


def _prepare_prompt() -> None:
    """Let the prompt edit lines, remember them, and take what is pasted as one message."""
    try:
        import readline  # not on every system
    except ImportError:
        return
    readline.parse_and_bind("set enable-bracketed-paste on")
