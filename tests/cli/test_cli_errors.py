"""What users can get wrong, what commands load, and the small functions beneath."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cli_terminal import COMMAND

from chathistory import Key, __version__
from chathistory.cli.errors import explain_error, name_options
from chathistory.cli.output import escape_controls, format_age, to_one_line
from chathistory.cli.responder import play_turn
from chathistory.errors import InvalidInput, OrphanedReply

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LONG = "x" * 256


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["lst"], 2, "No such command 'lst'"),
        (["list", "--limit", "0"], 2, "--limit"),
        (["list", "--limit", "many"], 2, "--limit"),
        (["list", "--after", "%%%"], 1, "the cursor is not valid"),
        (["list", "--scope", ""], 1, "scope"),
        (["list", "--store", "nowhere"], 1, "a store URL must begin with a scheme"),
        (["list", "--store", "fle:./x"], 1, "did you mean 'file'"),
        (["list", "--store", "file:./x?tll=5"], 1, "did you mean 'ttl'"),
        (["list", "--store", "file:./x?ttl=soon"], 1, "must be a duration"),
        (["list", "--store", "file:"], 1, "must have the path of a folder"),
        (["list", "--store", "file:/dev/null/x"], 1, "Not a directory"),
        (["show"], 2, "Missing argument"),
        (["show", "nobody"], 1, "there is no conversation nobody"),
        (["show", LONG], 1, "1 to 255 characters"),
        (["show", "a\x1bb"], 1, "control characters"),
        (["show", "a", "--json", "--messages"], 2, "cannot be given together"),
        (["show", "a", "--damaged", "--messages"], 2, "leave --messages and --last out"),
        (["show", "a", "--damaged", "--last", "1"], 2, "leave --messages and --last out"),
        (["show", "nobody", "--damaged"], 1, "there is no conversation nobody"),
        (["show", "a", "--last", "-1"], 2, "--last"),
        (["show", "a", "--last", "9" * 26], 2, "--last"),
        (["delete", "nobody", "--yes"], 1, "there is no conversation nobody"),
        (["chat", "--fake", "--continue", "hi"], 1, "there is no conversation in"),
        (["chat", "--fake"], 2, "there is no message"),
        (["chat", "--fake", "  "], 2, "there is no message"),
        (["chat", "--fake", "-c", "", "hi"], 1, "1 to 255 characters"),
        (["chat", "--fake", "-c", "a", "--continue", "hi"], 2, "cannot be given together"),
        (["chat", "--fake", "--retry"], 2, "--conversation ID or --continue"),
        (["chat", "--fake", "-c", "a", "--retry", "hi"], 2, "leave MESSAGE out"),
        (["chat", "--fake", "-c", "a", "--retry"], 1, "no turn without a reply"),
        (["chat", "--fake", "--store", "file:/dev/null/x", "hi"], 1, "Not a directory"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_explained_in_one_sentence(run, words, code, expected):
    done = run(*words)
    assert expected in done.stderr
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1


def test_input_that_is_no_text_is_refused(run):
    done = run("chat", "--fake", stdin=b"\xff\xfe\x00")
    assert done.returncode == 2
    assert "UTF-8" in done.stderr


def test_debug_shows_where(run):
    assert "Traceback" in run("list", "--store", "nowhere", "--debug").stderr


def test_a_damaged_conversation_is_reported_in_one_line(run, home, tmp_path):
    run("chat", "--fake", "-c", "a", "hello", "--store", "file:./h")
    [file] = tmp_path.glob("h/default/*.jsonl")
    file.write_text(file.read_text().replace("hello", "hellO"))
    done = run("show", "a", "--store", "file:./h")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "damaged" in done.stderr


@pytest.mark.parametrize("command", [[], ["chat"], ["list"], ["show"], ["delete"], ["backends"], ["config"]])
def test_help_has_an_example(run, command):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert f"  chathistory {command[0] if command else 'chat'}" in done.stdout.partition("Example")[2]


def test_no_summary_of_a_command_is_cut_off_in_a_narrow_terminal(run):
    _, _, commands = run("--help", COLUMNS="80").stdout.partition("Commands:\n")
    assert len(commands.splitlines()) == 20
    assert "..." not in commands


def test_a_file_that_is_not_there_is_named(run):
    assert run("import", "absent.jsonl").stderr == "Error: 'absent.jsonl': No such file or directory\n"


def test_the_version(process):
    assert process("--version").stdout == f"chathistory {__version__}\n"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], "anthropic rich pluggy"),
        (["list"], "anthropic"),
        (["backends"], "anthropic"),
        (["config"], "anthropic"),
    ],
)
def test_a_command_loads_no_more_than_it_needs(env, words, absent):
    code = (
        "import sys; from chathistory.cli.app import run; run(sys.argv[1:]); "
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, check=True)
    loaded = done.stdout.partition("LOADED")[2].split()
    assert "click" in loaded
    assert not set(absent.split()) & set(loaded)


def test_output_that_nobody_reads_is_no_error(env, run):
    run("chat", "--fake", "hello")
    process = subprocess.Popen([COMMAND, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait(600)
    assert errors == ""


def test_closed_streams_are_no_error(env):
    done = subprocess.run(f"{COMMAND} list <&- >&- 2>&-", shell=True, env=env, check=False)
    assert done.returncode == 0


class Interrupted:
    """A stream during which the user presses Ctrl-C: while it is opened, while it comes, while it is closed."""

    def __init__(self, *when: str) -> None:
        self.when = when
        self.went: list[str] = []

    def step(self, name: str) -> None:
        if name in self.when:
            os.kill(os.getpid(), signal.SIGINT)
        self.went.append(name)

    def __enter__(self):
        self.step("opened")
        return self

    def __iter__(self):
        self.step("came")
        yield "text"

    def __exit__(self, *exc_info):
        self.step("closed")


@pytest.mark.parametrize("when", [["opened"], ["came"], ["came", "closed"], ["opened", "closed"]], ids=" and ".join)
def test_ctrl_c_never_leaves_a_turn_half_opened_or_half_closed(when):
    stream, written = Interrupted(*when), []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        play_turn(stream, written.append)
    assert stream.went == ["opened", "closed"]
    assert written == []
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (86_400, "1 day ago"),
        (40 * 86_400, "1 month ago"),
        (800 * 86_400, "2 years ago"),
    ],
)
def test_times_are_printed_as_ages(seconds, words):
    assert format_age(NOW - timedelta(seconds=seconds), NOW) == words


def test_what_a_terminal_would_obey_is_made_visible():
    assert escape_controls("a\x1b[0m\tb\r\nc\x7f\x85\u2066\ud800") == "a␛[0m\tb\nc␡<U+0085><U+2066><U+D800>"
    assert escape_controls("naïve 中文 👩‍💻") == "naïve 中文 👩‍💻"
    assert to_one_line("a\n\tb  c") == "a b c"
    assert to_one_line("abcdef", 4) == "abc…"


@pytest.mark.parametrize("words", [["list"], ["show", "a"], ["chat", "--fake", "hi"], ["chat", "--fake", "--continue"]])
@pytest.mark.parametrize(
    "url", ["memory://user:geheim@host", "redis://user:geheim@host/0?x=geheim", "memory:x?ttl=geheim"]
)
def test_a_password_in_a_url_is_never_shown(run, words, url):
    done = run(*words, "--store", url, "--debug")
    assert done.stdout or done.stderr
    assert "geheim" not in done.stdout + done.stderr


def test_a_reply_that_came_too_late_is_explained():
    [line] = explain_error(OrphanedReply(Key("default", "a"), None))
    assert line.startswith("Error: the reply came too late: somebody else continued conversation 'a'")


def test_an_error_names_the_option_of_the_command_if_it_has_one():
    options = {"position": "--record"}
    with pytest.raises(InvalidInput, match=r"^--record: must be: 1 or 2$"), name_options(options):
        raise InvalidInput("position: must be: 1 or 2")
    with pytest.raises(InvalidInput, match=r"^title: must be text$"), name_options(options):
        raise InvalidInput("title: must be text")
