"""`chathistory chat`: which conversation, and one message or a talk."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from chathistory.cli.damaged_rows import tell_damaged
from chathistory.cli.escape import safe
from chathistory.cli.responder import Responder, make_responder
from chathistory.cli.target import Place, Run, debug_option, place_options
from chathistory.config.settings import MODEL, Settings
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine, ReplyStream
from chathistory.history import History

__all__ = ["chat"]

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike


@click.command()
@click.argument("message", required=False)
@click.option("-c", "--conversation", "name", metavar="ID", help="Go on with this conversation, or begin it.")
@click.option("--continue", "latest", is_flag=True, help="Go on with the latest conversation.")
@click.option(
    "--model",
    help="Which model. [env var: CHATHISTORY_MODEL; default: as configured, or the one that the conversation was held "
    f"with, or {MODEL}]",
)
@click.option("--system", metavar="TEXT", help='The system prompt; a conversation keeps its own, "" takes it away.')
@click.option("--fake", is_flag=True, help="Replies without a model, to try it: needs no key.")
@click.option("--retry", is_flag=True, help="Send the last message again, if it has no reply.")
@click.option("--abandon", is_flag=True, help="First give up a reply that another process still waits for.")
@place_options
@debug_option
def chat(
    message: str | None,
    *,
    place: Place,
    name: str | None,
    model: str | None,
    system: str | None,
    latest: bool,
    fake: bool,
    retry: bool,
    abandon: bool,
) -> None:
    r"""Talk with Claude; everything is saved as you go.

    In a terminal this is a talk: type, read, /help. With a MESSAGE as argument or on standard input, only the reply is
    printed. A reply takes the conversation so far into account.

    \b
    Examples:
      chathistory chat
      chathistory chat --continue
      chathistory chat "What is a monad?"
      chathistory chat -c thesis < chapter.txt
    """
    _check(message, name, latest=latest, retry=retry, abandon=abandon)
    settings = place.settings
    responder = make_responder(settings, model, fake=fake)
    system = settings.system if system is None else system
    talks = message is None and not retry and sys.stdin.isatty() and sys.stdout.isatty()
    words = None if talks or retry else _words(message)
    _say_where(place)
    with responder.client, place.opened() as history:
        conversation = _chosen(history, place, name, latest=latest, fake=fake)
        engine = _engine(responder, history, conversation, system, settings)
        if abandon:
            engine.abandon(conversation.id, scope=place.scope)
        if talks:
            _talk(engine, conversation, responder, debug=click.get_current_context().ensure_object(Run).debug)
        else:
            _once(engine, conversation, responder, words, ways=_ways_on(place, conversation.id, fake=fake))


def _check(message: str | None, name: str | None, *, latest: bool, retry: bool, abandon: bool) -> None:
    if name is not None and latest:
        raise click.UsageError("--conversation and --continue exclude each other.")
    if (retry or abandon) and name is None and not latest:
        raise click.UsageError("--retry and --abandon need --conversation ID or --continue.")
    if retry and message is not None:
        raise click.UsageError("--retry sends the message that is stored; leave MESSAGE out.")


def _words(message: str | None) -> str:
    """Return what to say: the argument, or all of standard input. Raises `click.UsageError` if that is nothing."""
    words = _read() if message is None else message
    if not words.strip():
        raise click.UsageError("there is no message: give one as argument or on standard input.")
    return words


def _read() -> str:
    if sys.stdin.isatty():
        click.echo("Type your message and end it with Ctrl-D.", err=True)
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.UsageError("standard input is not text in UTF-8.") from None


def _chosen(history: History, place: Place, name: str | None, *, latest: bool, fake: bool) -> Conversation:
    """Return the conversation to go on with, and say on standard error which one it is if that is not plain."""
    if latest:
        page = history.list(scope=place.scope, limit=1)
        rows = page.items
        tell_damaged(place, page.damaged, "passed over: damaged")
        if not rows:
            raise click.ClickException(
                f"there is no conversation in {place} yet; begin one with: {place.command('chat')}"
            )
        name = rows[0].id
    conversation = history.conversation(_fresh_name() if name is None else name, scope=place.scope)
    is_new = conversation.refresh() is None
    if is_new or latest:
        again = _resume(place, conversation.id, fake=fake)
        what = "new conversation" if is_new else "conversation"
        click.echo(safe(f"{what} {conversation.id} in {place}; go on with: {again}"), err=True)
    return conversation


def _say_where(place: Place) -> None:
    """Say where the words will be stored, if a file says so that nobody named: it may not be the user's own."""
    source = place.settings.sources["store"]
    if source.found:
        click.echo(safe(f"conversations are kept in {place}, as {source} says"), err=True)


def _engine(
    responder: Responder, history: History, conversation: Conversation, system: str | None, settings: Settings
) -> ChatEngine:
    """Return the engine; what was not given is what the conversation was held with so far."""
    setup = conversation.setup() or {}
    system = setup.get("system") if system is None else system or None
    return ChatEngine(
        responder.client,
        history,
        model=responder.choose_model(setup),
        system=system,
        max_tokens=settings.max_tokens,
        trimming=settings.trimming,
        context_editing=settings.context_editing,
    )


def _fresh_name() -> str:
    return f"{datetime.now(UTC).astimezone():%Y%m%d-%H%M%S}-{''.join(secrets.choice(_LETTERS) for _ in range(4))}"


def _resume(place: Place, name: str, *, fake: bool) -> str:
    return place.command("chat", "--conversation", name, *(["--fake"] if fake else []))


def _talk(engine: ChatEngine, conversation: Conversation, responder: Responder, *, debug: bool) -> None:
    from chathistory.cli.repl import Talk  # noqa: PLC0415 - brings rich, which a single message does not need

    if responder.is_fake:
        click.echo("The replies are those of a fake without a model, not Claude's.", err=True)
    click.echo("/help shows what you can type, Ctrl-D ends.", err=True)
    Talk(engine, conversation, name=responder.name, debug=debug).run()


def _ways_on(place: Place, name: str, *, fake: bool) -> Mapping[str, str]:
    """Return how to go on after an error, by the sort of what the API refused; "": it refused nothing."""
    again = _resume(place, name, fake=fake)
    return {
        "": f"send it again with: {again} --retry",
        "turn": f"say something else with: {again}",
        "earlier": f"leave that out with: {place.command('leave-out', name)}; then send it again with: {again} --retry",
        "size": f"make it shorter with: {place.command('trim', name)}; then send it again with: {again} --retry",
    }


def _once(
    engine: ChatEngine, conversation: Conversation, responder: Responder, words: str | None, *, ways: Mapping[str, str]
) -> None:
    """Print one reply, and nothing else, to standard output; words None: to the message that is stored."""
    from chathistory.cli.turn import ENDINGS, played, writer  # noqa: PLC0415 - not needed for a talk

    if responder.is_fake:
        click.echo("The reply is that of a fake without a model, not Claude's.", err=True)
    write = writer()
    on_screen = sys.stdout.isatty()
    with _told_how_to_go_on(ways):
        reply = played(_stream(engine, conversation, words), lambda text: write(safe(text) if on_screen else text))
    write("" if reply.text.endswith("\n") else "\n")
    if reply.stop_reason in ENDINGS:
        click.echo(f"Note: {ENDINGS[reply.stop_reason]}.", err=True)


def _stream(engine: ChatEngine, conversation: Conversation, words: str | None) -> ReplyStream:
    if words is None:
        return engine.stream_resumed(conversation.id, scope=conversation.scope)
    return engine.stream(conversation.id, words, scope=conversation.scope)


@contextmanager
def _told_how_to_go_on(ways: Mapping[str, str]) -> Iterator[None]:
    """Add to an error, if the message is stored by then and has no reply, how to go on."""
    try:
        yield
    except BaseException as error:
        if any("saved" in note for note in getattr(error, "__notes__", ())):
            error.add_note(f"chathistory: {ways[getattr(getattr(error, 'refusal', None), 'sort', '')]}")
        raise
