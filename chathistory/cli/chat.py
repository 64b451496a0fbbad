"""`chathistory chat`: which conversation, and one message or many."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime

import click

from chathistory.cli.escape import show_controls
from chathistory.cli.responder import Responder, make_responder
from chathistory.cli.target import Run, Target, shared_options
from chathistory.config.settings import MODEL
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine
from chathistory.history import History

__all__ = ["chat"]

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike


@click.command()
@click.argument("message", required=False)
@click.option("-c", "--conversation", "name", metavar="ID", help="Continue this conversation, or create it.")
@click.option("--continue", "latest", is_flag=True, help="Continue the latest conversation.")
@click.option(
    "--model",
    help="Which model. [env var: CHATHISTORY_MODEL; default: as configured, or that of the conversation so far, or "
    f"{MODEL}]",
)
@click.option("--system", metavar="TEXT", help='The system prompt. [default: the stored one; "" removes it]')
@click.option("--fake", is_flag=True, help="Replies without a model, to try it: needs no key.")
@click.option("--retry", is_flag=True, help="Send the last message again, if it has no reply.")
@click.option("--abandon", is_flag=True, help="First give up a reply that another process still waits for.")
@shared_options()
def chat(
    message: str | None,
    *,
    target: Target,
    name: str | None,
    model: str | None,
    system: str | None,
    latest: bool,
    fake: bool,
    retry: bool,
    abandon: bool,
) -> None:
    r"""Talk with Claude; everything is saved as you go.

    On a terminal there is a prompt: type, read, /help. With a MESSAGE as argument or on standard input, only the reply
    is printed. A reply takes the conversation so far into account.

    \b
    Examples:
      chathistory chat
      chathistory chat --continue
      chathistory chat "What is a monad?"
      chathistory chat -c thesis < chapter.txt
    """
    if name is not None and latest:
        raise click.UsageError("--conversation and --continue exclude each other.")
    if (retry or abandon) and name is None and not latest:
        raise click.UsageError("--retry and --abandon need --conversation ID or --continue.")
    if retry and message is not None:
        raise click.UsageError("--retry sends the message that is stored; leave MESSAGE out.")
    responder = make_responder(target.settings, model, fake=fake)
    interactive = message is None and not retry and sys.stdin.isatty() and sys.stdout.isatty()
    words = None if interactive or retry else _read_message(message)
    source = target.settings.sources["store"]
    if source.found:  # a file says so that nobody named: it may not be the user's own
        click.echo(show_controls(f"conversations are kept in {target}, as {source} says"), err=True)
    with responder.client, target.opened() as history:
        conversation = _choose_conversation(history, target, name, latest=latest, fake=fake)
        engine = _make_engine(responder, history, conversation, system, target)
        if abandon:
            engine.abandon(conversation.id)
        if fake:
            click.echo("The replies are those of a fake without a model, not Claude's.", err=True)
        if interactive:
            from chathistory.cli.repl import Prompt  # brings rich, which a single message does not need

            click.echo("/help shows what you can type, Ctrl-D ends.", err=True)
            debug = click.get_current_context().ensure_object(Run).debug
            Prompt(engine, conversation, name=responder.name, debug=debug).run()
        else:
            _print_reply(engine, conversation, responder, words, target)


def _read_message(message: str | None) -> str:
    """Return what to say: the argument, or all of standard input. Raises `click.UsageError` if that is nothing."""
    if message is None:
        if sys.stdin.isatty():
            click.echo("Type your message and end it with Ctrl-D.", err=True)
        try:
            message = str(sys.stdin.buffer.read(), "utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise click.UsageError("standard input is not text in UTF-8.") from None
    if not message.strip():
        raise click.UsageError("there is no message: give one as argument or on standard input.")
    return message


def _choose_conversation(
    history: History, target: Target, name: str | None, *, latest: bool, fake: bool
) -> Conversation:
    """Return the conversation to continue, and say on standard error which one it is if that is not obvious."""
    if latest:
        page = history.list(limit=1)
        if page.damaged:
            words = f"{len(page.damaged)} passed over: damaged; examine them with: {target.command('doctor')}"
            click.echo(words, err=True)
        if not page.items:
            hint = f"create one with: {target.command('chat')}"
            raise click.ClickException(f"there is no conversation in {target} yet; {hint}")
        name = page.items[0].id
    if name is None:
        letters = "".join(secrets.choice(_LETTERS) for _ in range(4))
        name = f"{datetime.now(UTC).astimezone():%Y%m%d-%H%M%S}-{letters}"
    conversation = history.conversation(name)
    is_new = conversation.state() is None
    if is_new or latest:
        what = "new conversation" if is_new else "conversation"
        again = _continue_command(target, name, fake=fake)
        click.echo(show_controls(f"{what} {name} in {target}; continue with: {again}"), err=True)
    return conversation


def _continue_command(target: Target, name: str, *, fake: bool) -> str:
    return target.command("chat", "--conversation", name, *(["--fake"] if fake else []))


def _make_engine(
    responder: Responder, history: History, conversation: Conversation, system: str | None, target: Target
) -> ChatEngine:
    """Return the engine; what is neither given nor configured stays as it was in the conversation."""
    setup = conversation.setup() or {}
    settings = target.settings
    system = settings.system if system is None else system
    return ChatEngine(
        responder.client,
        history,
        model=responder.choose_model(setup),
        system=setup.get("system") if system is None else system or None,
        max_tokens=settings.max_tokens,
        trimming=settings.trimming,
        context_editing=settings.context_editing,
    )


def _print_reply(
    engine: ChatEngine, conversation: Conversation, responder: Responder, words: str | None, target: Target
) -> None:
    """Print one reply, and nothing else, to standard output; words None: to the message that is stored."""
    from chathistory.cli.turn import NOTES, make_writer, play_turn  # not needed for the prompt

    write = make_writer()
    on_screen = sys.stdout.isatty()
    try:
        id = conversation.id
        stream = engine.stream_resumed(id) if words is None else engine.stream(id, words)
        reply = play_turn(stream, lambda text: write(show_controls(text) if on_screen else text))
    except BaseException as error:
        if any("saved" in note for note in getattr(error, "__notes__", ())):  # the message is, and has no reply
            again = _continue_command(target, conversation.id, fake=responder.is_fake)
            error.add_note(f"chathistory: {_suggest(error, target, conversation.id, again)}")
        raise
    write("" if reply.text.endswith("\n") else "\n")
    if reply.stop_reason in NOTES:
        click.echo(f"Note: {NOTES[reply.stop_reason]}.", err=True)


def _suggest(error: BaseException, target: Target, name: str, again: str) -> str:
    """Return what to do next, by the sort of what the API refused, if it refused something."""
    sort = getattr(getattr(error, "refusal", None), "sort", None)
    if sort == "turn":
        return f"say something else with: {again}"
    if sort == "earlier":
        return f"leave that out with: {target.command('leave-out', name)}; then send it again with: {again} --retry"
    if sort == "size":
        return f"make it shorter with: {target.command('trim', name)}; then send it again with: {again} --retry"
    return f"send it again with: {again} --retry"
