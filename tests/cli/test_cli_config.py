"""`chathistory config`, and the configuration as the other commands see it."""

from __future__ import annotations

import json

import pytest

from chathistory.testing import FakeMessagesAPI

SECRET = "geheim"
FILE = """
profile = "dev"
scope = "ada"

[trimming]
trigger_turns = 40
keep_turns = 5
compaction = true

[profiles.dev]
store = "file:./dev"
model = "claude-haiku-5-5"

[profiles.prod]
store = "${REDIS_URL}"
system = "Your name is ${NAME}."

[profiles.prod.store_options]
ttl = 86400
socket_keepalive = false
password = "${REDIS_PASSWORD}"
"""
PROD = {"REDIS_URL": f"redis://u:{SECRET}@host:1/0", "REDIS_PASSWORD": SECRET, "NAME": SECRET}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "chathistory.toml"
    path.write_text(FILE)
    return path


def rows(text):
    return {name: (value, source) for name, value, source in (line.split("\t") for line in text.splitlines())}


def test_it_shows_what_is_in_force_and_where_it_came_from(run, file, tmp_path):
    done = run("config", CHATHISTORY_MAX_TOKENS="7", CHATHISTORY_TRIMMING_KEEP_TURNS="20")
    assert rows(done.stdout) == {
        "profile": ("dev", f"{file}: profile"),
        "store": (f"file:{tmp_path}/dev", f"{file}: profiles.dev.store"),
        "scope": ("ada", f"{file}: scope"),
        "model": ("claude-haiku-5-5", f"{file}: profiles.dev.model"),
        "system": ("", "default"),
        "max_tokens": ("7", "CHATHISTORY_MAX_TOKENS"),
        "trimming.trigger_turns": ("40", f"{file}: trimming.trigger_turns"),
        "trimming.keep_turns": ("20", "CHATHISTORY_TRIMMING_KEEP_TURNS"),
        "trimming.compaction": ("true", f"{file}: trimming.compaction"),
    }
    assert done.stderr == f"configuration files: {file}\n"
    assert done.returncode == 0


def test_nothing_secret_is_shown(run, file):
    done = run("config", "--profile", "prod", **PROD)
    assert SECRET not in done.stdout + done.stderr
    shown = rows(done.stdout)
    options = f"{file}: profiles.prod.store_options"
    assert shown["profile"] == ("prod", "--profile")
    assert shown["store"] == ("redis://***@host:1/0?...", f"{file}: profiles.prod.store (${{REDIS_URL}})")
    assert shown["store_options.ttl"] == ("86400.0", f"{options}.ttl")
    assert shown["store_options.socket_keepalive"] == ("false", f"{options}.socket_keepalive")
    assert shown["store_options.password"] == ("***", f"{options}.password (${{REDIS_PASSWORD}})")
    assert shown["system"] == ("***", f"{file}: profiles.prod.system (${{NAME}})")


def test_as_json(run, file):
    done = run("config", "--profile", "prod", "--json", **PROD)
    found = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert found["store_options.ttl"]["value"] == 86400.0
    source = f"{file}: trimming.compaction"
    assert found["trimming.compaction"] == {"name": "trimming.compaction", "value": True, "source": source}
    assert found["store_options.password"]["value"] == "***"
    assert SECRET not in done.stdout + done.stderr


def test_in_a_terminal_it_is_a_table(terminal, file):
    screen = terminal("config", "--profile", "prod", NO_COLOR="1", **PROD)
    assert screen.end() == 0
    for words in ("SETTING", "VALUE", "FROM", "redis://***@host:1/0?...", "profiles.prod.store", "store_options.ttl"):
        assert words in screen.seen
    assert SECRET not in screen.seen


def test_without_any_file_it_says_where_it_looked(run, home):
    done = run("config")
    assert done.stderr.startswith(
        "configuration files: none; looked for chathistory.toml in this folder and above, and for "
    )
    assert f"{home}/.config/chathistory/config.toml" in done.stderr
    assert rows(done.stdout)["store"][1] == "default"


def test_an_unknown_variable_is_noted(run):
    done = run("config", CHATHISTORY_STROE="x", CHATHISTORY_TEST_X="x")
    assert "note: unknown environment variable CHATHISTORY_STROE; did you mean 'CHATHISTORY_STORE'?" in done.stderr
    assert "CHATHISTORY_TEST_X" not in done.stderr


def test_a_wrong_store_is_reported_after_the_settings(run, tmp_path):
    (tmp_path / "chathistory.toml").write_text(f'store = "redis://u:{SECRET}@h"\n[store_options]\ntll = "{SECRET}"')
    done = run("config")
    assert done.returncode == 1
    assert rows(done.stdout)["store_options.tll"][0] == "***"
    assert "Error: redis: has no option 'tll'; did you mean 'ttl'?" in done.stderr
    assert f"the store is set here: {tmp_path}/chathistory.toml: store, store_options.tll" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", [f"redis://u:a?b&{SECRET}=c@h", f"redis://u:a?{SECRET}@h", f"redis://u:a@h?{SECRET}=1"])
def test_half_of_a_password_is_not_shown_as_an_option(run, url):
    done = run("config", "--store", url)
    assert done.returncode == 1
    assert SECRET not in done.stdout


def test_without_a_backend_the_rest_is_shown(run):
    done = run("config", "--store", "mongo://h")
    assert rows(done.stdout)["store"] == ("mongo://h", "--store")
    assert "did you mean 'mongodb'" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    "command", [["list"], ["show", "a"], ["delete", "a", "--yes"], ["chat", "--fake", "hi"], ["config"]]
)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--profile", "prdo"], "--profile: there is no profile 'prdo'; did you mean 'prod'? (known: dev, prod)"),
        (["--profile", "prod"], "profiles.prod.store: the environment variable REDIS_URL is not set"),
        (["--config", "nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["--store", ""], "--store: a store URL must begin with a scheme"),
        (["--store", "mongo:"], "did you mean 'mongodb'"),
    ],
)
def test_each_command_reports_a_wrong_setting_in_one_line(run, file, command, words, expected):
    done = run(*command, *words)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1


def test_commands_use_the_store_of_the_profile(run, file, tmp_path):
    done = run("chat", "--fake", "-c", "a", "hello")
    assert done.stdout.startswith("[fake reply, no model] You said: hello")
    assert f"conversations are stored in file:{tmp_path}/dev, as set by {file}: profiles.dev.store" in done.stderr
    assert run("list").stdout.startswith("a\t2\t")
    assert run("list", "--scope", "default").stdout == ""
    assert run("show", "a").returncode == 0
    assert run("list", "--store", f"file:{tmp_path}/dev").stdout.startswith("a\t2\t")


def test_the_suggested_command_has_the_same_options(run, file, tmp_path):
    other = tmp_path / "o.toml"
    other.write_text('[profiles.p]\nstore = "file:./dev"')
    done = run("chat", "--fake", "--config", "o.toml", "--profile", "p", "--scope", "x", "hi", "-c", "b")
    [again] = [line.partition("continue with: ")[2] for line in done.stderr.splitlines() if "continue with: " in line]
    assert again == "chathistory chat --conversation b --fake --scope x --profile p --config o.toml"
    assert "conversations are kept" not in done.stderr  # the file was named
    assert run(*again.split()[1:], "more").stdout.startswith("[fake reply, no model] You said: more (message 3")
    secret = run("chat", "--store", "memory:x?ttl=5000", "--fake", "hi")
    assert "--store URL" in secret.stderr


def test_requests_have_the_configured_values(run, tmp_path):
    (tmp_path / "chathistory.toml").write_text(
        'store = "file:./h"\nmodel = "claude-haiku-5-5"\nsystem = "Be brief."\nmax_tokens = 99'
    )
    api = FakeMessagesAPI("hi")
    with api.serve() as url:
        place = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "x"}
        run("chat", "-c", "a", "hello", **place)
        run("chat", "-c", "a", "--model", "claude-opus-5-5", "--system", "", "hello", **place)
        (tmp_path / "chathistory.toml").write_text('store = "file:./h"')
        run("chat", "-c", "a", "hello", **place)
    requests = [
        (body["model"], body.get("system"), body["max_tokens"]) for body in (call.body for call in api.requests)
    ]
    assert requests == [
        ("claude-haiku-5-5", "Be brief.", 99),
        ("claude-opus-5-5", None, 99),
        ("claude-opus-5-5", None, 16_000),  # the stored model: nothing else is configured now
    ]


def test_a_config_file_in_the_users_folder(run, home):
    folder = home / ".config" / "chathistory"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('store = "file:./mine"')
    done = run("chat", "--fake", "-c", "a", "hi")
    assert f"new conversation a in file:{folder}/mine" in done.stderr
    assert "conversations are kept" not in done.stderr
