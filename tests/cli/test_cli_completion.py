"""Shell completion, in each shell that this machine has; the script for the others is looked at as text."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from cli_terminal import COMMAND, Terminal

SHELLS = ("bash", "zsh", "fish")
needs = {name: pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed") for name in SHELLS}


@pytest.fixture
def shell_env(env, open_history, store):
    """The environment of a user who has three conversations, one of them with an id that shells would split."""
    with open_history() as history:
        for id in ("thesis", "theory", "the end; rm -rf *"):
            history.conversation(id).append({"role": "user", "content": "hi"})
        history.conversation("other", scope="ada").append({"role": "user", "content": "hi"})
    return env | {"CHATHISTORY_STORE": store, "PATH": f"{Path(COMMAND).parent}{os.pathsep}{env['PATH']}"}


@cache
def script_of(shell):
    asking = os.environ | {"_CHATHISTORY_COMPLETE": f"{shell}_source"}
    return subprocess.run([COMMAND], env=asking, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(shell):
    script = script_of(shell)
    assert f"_CHATHISTORY_COMPLETE={shell}_complete" in script
    assert {"bash": "complete -o nosort -F", "zsh": "#compdef chathistory", "fish": "complete --no-files"}[
        shell
    ] in script


WORDS = [
    (["tri"], ["trim"]),
    (["list", "--all"], []),
    (["export", "--all"], ["--all-scopes"]),
    (["show", "the"], ["theory", "thesis"]),
    (["show", "--scope", "ada", ""], ["other"]),
    (["delete", "thesis", "theo"], ["theory"]),
    (["list", "--scope", "a"], ["ada"]),
    (["show", "--store", "nowhere:", "the"], []),
]


@pytest.mark.parametrize(("words", "due"), WORDS, ids=str)
def test_bash_completes_commands_options_and_ids(shell_env, words, due):
    line = ["chathistory", *words]
    given = " ".join(f"'{word}'" for word in line)
    code = f"{script_of('bash')}\nCOMP_WORDS=({given}) COMP_CWORD={len(words)}\n"
    code += "_chathistory_completion chathistory\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "--norc", "-c", code], env=shell_env, capture_output=True, text=True, check=True)
    assert (sorted(done.stdout.split()), done.stderr) == (due, "")


@needs["fish"]
@pytest.mark.parametrize(("words", "due"), WORDS, ids=str)
def test_fish_completes_commands_options_and_ids(shell_env, tmp_path, words, due):
    (tmp_path / "c.fish").write_text(script_of("fish"))
    code = f"source c.fish; complete -C 'chathistory {' '.join(words)}'"
    fish = ["fish", "--no-config", "-c", code]
    done = subprocess.run(fish, env=shell_env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (sorted(line.split("\t")[0] for line in done.stdout.splitlines()), done.stderr) == (due, "")


@pytest.mark.parametrize(
    ("shell", "setup"),
    [
        ("bash", ["bash", "--norc", "-i"]),
        pytest.param("zsh", ["zsh", "-f", "-i"], marks=needs["zsh"]),
    ],
)
def test_the_tab_key_completes_as_the_page_says(shell_env, tmp_path, shell, setup):
    """What the page has people write into the file that their shell reads, and then the key."""
    page = (Path(__file__).parents[2] / "docs" / "using.md").read_text()
    [line] = [line for line in page.splitlines() if f"{shell}_source chathistory)" in line]
    line = line.strip().removeprefix("echo '").partition("' >>")[0]
    screen = Terminal((), shell_env | {"PS1": "> ", "PROMPT": "> "}, tmp_path, command=setup)
    try:
        screen.expect("> ")
        if shell == "zsh":
            screen.type("autoload -U compinit; compinit -u -D\r")
        screen.type(f"{line}; echo rea''dy\r")
        screen.expect("ready")
        screen.type("chathistory show thes\t")
        screen.expect("thesis")
        screen.type(" | tail -c 4\r")
        screen.expect("hi")
    finally:
        screen.close()
