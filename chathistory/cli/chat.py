"""`chathistory chat`: choose a conversation, then send one message or prompt for many."""

from __future__ import annotations

import re
import secrets
import sys
from contextlib import suppress
from datetime import UTC, datetime

import click

from chathistory.cli.errors import is_known_error, print_error
from chathistory.cli.options import CommandTarget, RunState, shared_options
from chathistory.cli.output import escape_controls, make_console
from chathistory.cli.responder import FAKE_MODEL, STOP_REASONS, Responder, make_responder, make_writer, play_turn
from chathistory.cli.show import load_displayed
from chathistory.config.settings import MODEL
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine, ReplyStream
from chathistory.history import History
from chathistory.log.lease import lease_end

__all__ = ["chat"]

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without characters that look alike
_NEXT_STEPS = {
    "turn": "send a different message with: {chat}",
    "earlier": "leave that out with: {leave_out}; then send the message again with: {chat} --retry",
    "size": "make the conversation shorter with: {trim}; then send the message again with: {chat} --retry",
    None: "send the message again with: {chat} --retry",
}
"""What to do after an error, by `Refusal.kind`; None: the API refused nothing."""

_SHOWN_AT_START = 6
_NEWEST = 4  # the last message is among this many newest entries: an interrupted reply may follow it
_COMMAND = re.compile(r"/[a-z]+")
_HELP = """\
/retry     send the last message again, if it has no reply
/abandon   give up a reply that another process is waiting for
/quit      quit (Ctrl-D, or Ctrl-C here, do the same); Ctrl-C during a reply stops only that reply
Anything else is sent to Claude. Pasted text is one message, however many lines it has."""
_UNANSWERED = "the last message has no reply yet: /retry sends it again, or type a new message"


@click.command()
@click.argument("message", required=False)
@click.option("-c", "--conversation", "name", metavar="ID", help="Continue this conversation, or create it.")
@click.option("--continue", "latest", is_flag=True, help="Continue the conversation with the newest activity.")
@click.option(
    "--model",
    metavar="MODEL",
    help="Model to ask. [env var: CHATHISTORY_MODEL; default: as configured, or the conversation's last model, or "
    f"{MODEL}]",
)
@click.option(
    "--system", metavar="TEXT", help='System prompt; "" removes it. [default: as configured, or the stored one]'
)
@click.option("--fake", is_flag=True, help="Reply without a model, to try it out; needs no API key.")
@click.option("--retry", is_flag=True, help="Send the last message again, if it has no reply.")
@click.option("--abandon", is_flag=True, help="First give up a reply that another process is waiting for.")
@shared_options()
def chat(
    message: str | None,
    *,
    target: CommandTarget,
    name: str | None,
    model: str | None,
    system: str | None,
    latest: bool,
    fake: bool,
    retry: bool,
    abandon: bool,
) -> None:
    r"""Chat with Claude; every message and reply is saved.

    On a terminal it opens a prompt; /help there lists the commands. With MESSAGE as an argument or on standard input,
    it prints only the reply. Claude gets the conversation so far with each message.

    \b
    Examples:
      chathistory chat
      chathistory chat --continue
      chathistory chat "What is a monad?"
      chathistory chat -c thesis < chapter.txt
    """
    if name is not None and latest:
        raise click.UsageError("--conversation and --continue cannot be given together; leave one of them out.")
    if (retry or abandon) and name is None and not latest:
        raise click.UsageError("--retry and --abandon need --conversation ID or --continue.")
    if retry and message is not None:
        raise click.UsageError("--retry sends the stored message again; leave MESSAGE out.")
    responder = make_responder(target.settings, model, fake=fake)
    interactive = message is None and not retry and sys.stdin.isatty() and sys.stdout.isatty()
    text = None if interactive or retry else _read_message(message)
    source = target.settings.sources["store"]
    if source.found:  # nobody named this file: it may have come with a repository of somebody else
        click.echo(escape_controls(f"conversations are stored in {target}, as set by {source}"), err=True)
    with responder.client, target.open() as history:
        conversation = _choose_conversation(history, target, name, latest=latest, fake=fake)
        system = target.settings.system if system is None else system
        engine = responder.make_engine(history, conversation, system=system)
        if abandon:
            engine.abandon(conversation.id)
        if fake:
            click.echo("The replies come from a fake without a model, not from Claude.", err=True)
        if interactive:
            click.echo("/help lists the commands, Ctrl-D quits.", err=True)
            debug = click.get_current_context().ensure_object(RunState).debug
            Prompt(engine, conversation, name=responder.name, debug=debug).run()
        else:
            _print_reply(engine, conversation, responder, text, target)


def _read_message(message: str | None) -> str:
    """Return the message: the argument, or all of standard input. Raises `click.UsageError` if it is empty."""
    if message is None:
        if sys.stdin.isatty():
            click.echo("Type your message and end it with Ctrl-D.", err=True)
        try:
            message = str(sys.stdin.buffer.read(), "utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise click.UsageError("standard input must be text in UTF-8.") from None
    if not message.strip():
        raise click.UsageError("there is no message: give MESSAGE as an argument or on standard input.")
    return message


def _choose_conversation(
    history: History, target: CommandTarget, name: str | None, *, latest: bool, fake: bool
) -> Conversation:
    """Return the conversation to continue; name it on standard error if the user did not."""
    if latest:
        page = history.list(limit=1)
        if page.damaged:
            words = f"skipped {len(page.damaged)} damaged; examine them with: {target.format_command('doctor')}"
            click.echo(words, err=True)
        if not page.items:
            hint = f"create one with: {target.format_command('chat')}"
            raise click.ClickException(f"there is no conversation in {target} yet; {hint}")
        name = page.items[0].id
    if name is None:
        letters = "".join(secrets.choice(_LETTERS) for _ in range(4))
        name = f"{datetime.now(UTC).astimezone():%Y%m%d-%H%M%S}-{letters}"
    conversation = history.conversation(name)
    is_new = conversation.state() is None
    if is_new or latest:
        kind = "new conversation" if is_new else "conversation"
        again = target.format_command("chat", "--conversation", name, *(["--fake"] if fake else []))
        click.echo(escape_controls(f"{kind} {name} in {target}; continue with: {again}"), err=True)
    return conversation


def _print_reply(
    engine: ChatEngine, conversation: Conversation, responder: Responder, text: str | None, target: CommandTarget
) -> None:
    """Print one reply, and nothing else, to standard output; text None: reply to the stored message."""
    write = make_writer()
    on_screen = sys.stdout.isatty()
    id = conversation.id
    try:
        stream = engine.stream_resumed(id) if text is None else engine.stream(id, text)
        reply = play_turn(stream, lambda piece: write(escape_controls(piece) if on_screen else piece))
    except BaseException as error:
        if any("saved" in note for note in getattr(error, "__notes__", ())):  # the message is saved and has no reply
            words = _NEXT_STEPS.get(getattr(getattr(error, "refusal", None), "kind", None), _NEXT_STEPS[None])
            chat = target.format_command(
                "chat", "--conversation", id, *(["--fake"] if responder.name == FAKE_MODEL else [])
            )
            leave_out, trim = (target.format_command(command, id) for command in ("leave-out", "trim"))
            error.add_note(f"chathistory: {words.format(chat=chat, leave_out=leave_out, trim=trim)}")
        raise
    write("" if reply.text.endswith("\n") else "\n")
    if reply.stop_reason in STOP_REASONS:
        click.echo(f"Note: {STOP_REASONS[reply.stop_reason]}.", err=True)


class Prompt:
    """A prompt on the terminal for one conversation.

    Args:
        engine: The engine that sends the messages.
        conversation: The conversation.
        name: The name before each reply: "claude" or "fake".
        debug: Whether to print the traceback of an error.
    """

    def __init__(self, engine: ChatEngine, conversation: Conversation, *, name: str, debug: bool) -> None:
        self._engine = engine
        self._conversation = conversation
        self._name = name
        self._debug = debug
        self._console = make_console()

    def run(self) -> None:
        """Print the newest messages, then prompt for messages and print replies until the user quits."""
        self._print_last_entries()
        with suppress(ImportError):  # not available on every system
            import readline  # gives `input` line editing and a history, and makes pasted text one message

            readline.parse_and_bind("set enable-bracketed-paste on")
        while True:
            try:
                typed = input("you> ").strip()
            except (EOFError, KeyboardInterrupt):
                self._console.print()
                return
            if typed in ("/quit", "/exit"):
                return
            try:
                self._handle_input(typed)
            except Exception as error:
                if not is_known_error(error):
                    raise
                print_error(error, debug=self._debug)
                if self._can_retry():
                    self._print_note(_UNANSWERED)

    def _handle_input(self, typed: str) -> None:
        """Run the command that was typed, or send the message."""
        id = self._conversation.id
        if typed == "/help":
            self._print_note(_HELP)
        elif typed == "/retry":
            self._print_reply(self._engine.stream_resumed(id))
        elif typed == "/abandon":
            was_open = self._engine.abandon(id)
            self._print_note(
                _UNANSWERED if was_open else "no other process is waiting for a reply in this conversation"
            )
        elif _COMMAND.fullmatch(typed):
            self._print_note(f"unknown command {typed}; /help lists the commands")
        elif typed:
            self._print_reply(self._engine.stream(id, typed))

    def _print_reply(self, stream: ReplyStream) -> None:
        self._print_name(self._name)
        write = make_writer()
        try:
            reply = play_turn(stream, lambda piece: write(escape_controls(piece)))
        except KeyboardInterrupt:
            self._console.print()
            last = next(self._conversation.entries(-1), None)
            is_saved = last is not None and last.kind == "reply_interrupted"
            outcome = (
                "the partial reply is saved, but never sent to Claude"
                if is_saved
                else "no part of the reply had arrived"
            )
            self._print_note(f"stopped; {outcome}. /retry sends your message again, or type a new one")
        except BaseException:
            self._console.print()
            raise
        else:
            self._console.print()
            if reply.stop_reason in STOP_REASONS:
                self._print_note(STOP_REASONS[reply.stop_reason])

    def _print_last_entries(self) -> None:
        entries = load_displayed(self._conversation, _SHOWN_AT_START)
        for entry in entries:
            self._print_name(entry.author)
            self._console.out(entry.text, highlight=False)
            if entry.reason_not_sent:
                self._print_note(f"[{entry.reason_not_sent}]")
        state = self._conversation.state()
        if state and state.engine.open_turn and lease_end(state.engine.open_turn):
            since = next((entry.time for entry in reversed(entries) if entry.kind == "message"), "before")
            self._print_note(
                f"another process has been waiting for a reply since {since}; /abandon gives that reply up"
            )
        elif self._can_retry():
            self._print_note(_UNANSWERED)

    def _can_retry(self) -> bool:
        """Return True if the last message can be sent again: it has no reply, and the API did not refuse it."""
        last = self._conversation.last_messages(1)
        if not last or last[-1]["role"] != "user":
            return False
        kinds = [entry.kind for entry in load_displayed(self._conversation, _NEWEST)]
        message_kinds = [kind for kind in kinds if kind in ("message", "turn_refused")]
        return not message_kinds or message_kinds[-1] == "message"

    def _print_name(self, name: str) -> None:
        style = {"you": "bold", FAKE_MODEL: "bold yellow"}.get(name, "bold cyan")
        self._console.out(f"{name}> ", style=style, end="")
        sys.stdout.flush()

    def _print_note(self, text: str) -> None:
        self._console.out(text, style="dim", highlight=False)
