"""Which place wins; profiles; references to the environment; what the settings tell of themselves."""

from __future__ import annotations

import itertools
import sys

import pytest

from chathistory import ChatEngine, load_settings, open_history
from chathistory.config.settings import SETTINGS, variable_of
from chathistory.config.source import expand, find_references
from chathistory.engine.request import MAX_TOKENS
from chathistory.errors import ConfigError, PluginError
from chathistory.trimming import AnyOf, Compaction, ContextEditing, LastTurns, MaxAge, TokenBudget

SECRET = "geheim"
FROM_TABLES = ("trimming", "context_editing")
PLACES = ("call", "environment", "chathistory.toml", "pyproject.toml", "own")


@pytest.fixture
def put(project, users, monkeypatch):
    """Set the scope in one of the sources; return the arguments for `load_settings`."""

    def put(place, name="scope", value=None):
        value = place if value is None else value
        if place == "call":
            return {name: value}
        if place == "environment":
            monkeypatch.setenv(variable_of(name), value)
        elif place == "chathistory.toml":
            (project / place).write_text(f"{name} = '{value}'")
        elif place == "pyproject.toml":
            (project / place).write_text(f"[tool.chathistory]\n{name} = '{value}'")
        else:
            users.write_text(f"{name} = '{value}'")
        return {}

    return put


@pytest.mark.parametrize(("upper", "lower"), list(itertools.combinations(PLACES, 2)))
def test_the_source_with_higher_priority_wins(put, upper, lower):
    given = put(lower) | put(upper)
    assert load_settings(**given).scope == upper
    assert load_settings(**given).is_set("scope")


@pytest.mark.parametrize("place", PLACES)
def test_each_source_sets_a_value_and_is_named(put, project, users, place):
    settings = load_settings(**put(place))
    assert settings.scope == place
    assert (
        str(settings.sources["scope"])
        == {
            "call": "argument scope",
            "environment": "CHATHISTORY_SCOPE",
            "chathistory.toml": f"{project}/chathistory.toml: scope",
            "pyproject.toml": f"{project}/pyproject.toml: tool.chathistory.scope",
            "own": f"{users}: scope",
        }[place]
    )
    assert settings.sources["scope"].found is place.endswith(".toml")


def test_defaults_if_nothing_is_set(project):
    settings = load_settings()
    assert {
        name: getattr(settings, name) for name in (*(name for name in SETTINGS if "." not in name), *FROM_TABLES)
    } == {
        "store": None,
        "scope": "default",
        "model": "claude-sonnet-5-5",
        "system": None,
        "max_tokens": MAX_TOKENS,
        "trimming": None,
        "context_editing": None,
    }
    assert (settings.profile, settings.files) == (None, ())
    assert {str(source) for source in settings.sources.values()} == {"default"}
    assert not any(settings.is_set(name) for name in SETTINGS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("store", "memory:x", "memory:x"),
        ("scope", "s", "s"),
        ("model", "m", "m"),
        ("system", "Be ${brief}.", "Be ${brief}."),
        ("max_tokens", "5", 5),
        ("profile", "p", "p"),
    ],
)
def test_each_variable_of_the_environment(project, monkeypatch, name, text, value):
    (project / "chathistory.toml").write_text("[profiles.p]")
    monkeypatch.setenv(variable_of(name), text)
    settings = load_settings()
    assert getattr(settings, name) == value or str(getattr(settings, name)) == value
    assert str(settings.sources[name]) == variable_of(name)
    monkeypatch.setenv(variable_of(name), "")
    assert load_settings() == load_settings(config=project / "chathistory.toml")  # empty is not set


@pytest.mark.parametrize(
    ("variables", "trimming", "context_editing"),
    [
        ({"TRIMMING_TRIGGER_TURNS": "40", "TRIMMING_KEEP_TURNS": "20"}, LastTurns(40, 20), None),
        ({"TRIMMING_TRIGGER_AGE": "7d", "TRIMMING_KEEP_AGE": "12h"}, MaxAge(604_800, 43_200), None),
        ({"CONTEXT_EDITING_COMPACT": "yes"}, None, ContextEditing(compact=True)),
        ({"CONTEXT_EDITING_COMPACT": "200_000"}, None, ContextEditing(compact=200_000)),
        ({"CONTEXT_EDITING_CLEAR_THINKING": "1"}, None, ContextEditing(clear_thinking=True)),
        ({"CONTEXT_EDITING_CLEAR_TOOL_USES": "false"}, None, None),
    ],
    ids=str,
)
def test_each_key_of_a_table_has_a_variable(project, monkeypatch, variables, trimming, context_editing):
    for name, text in variables.items():
        monkeypatch.setenv(f"CHATHISTORY_{name}", text)
    settings = load_settings()
    assert (settings.trimming, settings.context_editing) == (trimming, context_editing)
    key = next(iter(variables)).lower().replace("trimming_", "trimming.").replace("editing_", "editing.")
    assert str(settings.sources[key]) == f"CHATHISTORY_{next(iter(variables))}"


TABLES = """
[trimming]
trigger_tokens = 100_000
keep_tokens = "50_000"
trigger_turns = 40
keep_turns = 20
compaction = true

[context_editing]
clear_thinking = true
clear_tool_uses = { keep = { type = "tool_uses", value = 3 } }
compact = 200_000
"""


def test_trimming_and_context_editing_are_tables(project):
    (project / "chathistory.toml").write_text(TABLES)
    settings = load_settings()
    assert settings.trimming == Compaction(AnyOf(TokenBudget(100_000, 50_000), LastTurns(40, 20)))
    keep = {"keep": {"type": "tool_uses", "value": 3}}
    assert settings.context_editing == ContextEditing(clear_thinking=True, clear_tool_uses=keep, compact=200_000)
    assert str(settings.sources["trimming.keep_turns"]) == f"{project}/chathistory.toml: trimming.keep_turns"


def test_keys_of_a_table_are_merged_one_by_one(project, users, monkeypatch):
    (project / "chathistory.toml").write_text("[trimming]\ntrigger_turns = 40\nkeep_turns = 20")
    users.write_text("[trimming]\nkeep_turns = 5\n[profiles.off.trimming]\nenabled = false")
    assert load_settings().trimming == LastTurns(40, 20)
    monkeypatch.setenv("CHATHISTORY_TRIMMING_KEEP_TURNS", "10")
    assert load_settings().trimming == LastTurns(40, 10)
    assert load_settings(trimming={"keep_turns": 3}).trimming == LastTurns(40, 3)
    assert load_settings(profile="off").trimming is None


def test_an_error_of_two_keys_names_their_source(project, monkeypatch):
    (project / "chathistory.toml").write_text("[trimming]\ncompaction = true\ntrigger_turns = 40\nkeep_turns = 20")
    monkeypatch.setenv("CHATHISTORY_TRIMMING_KEEP_TURNS", "50")
    with pytest.raises(ConfigError) as wrong:
        load_settings()
    assert str(wrong.value) == "CHATHISTORY_TRIMMING_KEEP_TURNS: keep_turns must not be more than trigger_turns"
    assert wrong.value.__cause__ is wrong.value.__context__ is None


def test_an_error_of_the_environment_names_the_variable(project, monkeypatch):
    monkeypatch.setenv("CHATHISTORY_MAX_TOKENS", SECRET)
    with pytest.raises(ConfigError, match="CHATHISTORY_MAX_TOKENS: must be an integer above 0") as wrong:
        load_settings()
    assert SECRET not in str(wrong.value)
    assert wrong.value.__cause__ is wrong.value.__context__ is None


def test_what_is_wrong_in_a_call(project):
    with pytest.raises(ConfigError, match="argument modle: there is no setting 'modle'; did you mean 'model'"):
        load_settings(modle="x")
    with pytest.raises(ConfigError, match="argument profile: there is no profile 'x'"):
        load_settings(profile="x")


PROFILES = """
store = "file:./base"
scope = "base"
model = "base"

[store_options]
ttl = 1

[profiles.dev]
store = "file:./dev"
scope = "dev"

[profiles.prod]
store = "redis://host"
scope = "prod"

[profiles.prod.store_options]
prefix = "p:"

[profiles.short.store_options]
lock_timeout = 3
"""


def test_a_profile_overrides_the_other_values_of_its_file(project):
    (project / "chathistory.toml").write_text(f'profile = "dev"{PROFILES}')
    settings = load_settings()
    assert (str(settings.store), settings.scope, settings.model, settings.profile) == (
        "file:./dev",
        "dev",
        "base",
        "dev",
    )
    assert str(settings.sources["scope"]) == f"{project}/chathistory.toml: profiles.dev.scope"
    assert str(settings.sources["profile"]) == f"{project}/chathistory.toml: profile"


def test_a_profile_has_the_priority_of_its_selection(project, users, monkeypatch):
    (project / "chathistory.toml").write_text(f'profile = "dev"{PROFILES}')
    monkeypatch.setenv("CHATHISTORY_SCOPE", "variable")
    assert load_settings().scope == "variable"
    assert load_settings(profile="prod").scope == "prod"
    assert load_settings(profile="prod", scope="call").scope == "call"
    monkeypatch.setenv("CHATHISTORY_PROFILE", "prod")
    assert (load_settings().scope, str(load_settings().store)) == ("variable", "redis://host?...")
    monkeypatch.delenv("CHATHISTORY_PROFILE")
    monkeypatch.delenv("CHATHISTORY_SCOPE")
    (project / "chathistory.toml").write_text(PROFILES)
    users.write_text('profile = "dev"\nmodel = "own"')
    settings = load_settings()
    assert (settings.scope, settings.profile) == ("base", "dev")  # the project's values override the user's choice


def test_a_profile_of_all_files_that_have_it_the_nearest_first(project, users):
    (project / "chathistory.toml").write_text('scope = "base"\n[profiles.p]\nmodel = "near"')
    users.write_text('[profiles.p]\nmodel = "far"\nscope = "far"\n[profiles.q]\nscope = "q"')
    settings = load_settings(profile="p")
    assert (settings.model, settings.scope) == ("near", "far")
    assert load_settings(profile="q").scope == "q"


def test_options_belong_to_the_store_of_the_same_source(project, monkeypatch):
    (project / "chathistory.toml").write_text(PROFILES)
    assert load_settings().store.options == {"ttl": 1}
    assert load_settings(profile="prod").store.options == {"prefix": "p:"}
    assert load_settings(profile="dev").store.options == {}
    assert load_settings(profile="short").store.options == {"lock_timeout": 3, "ttl": 1}
    assert load_settings(store="file:./other").store.options == {}
    monkeypatch.setenv("CHATHISTORY_STORE", "file:./other?ttl=7")
    assert load_settings().store.options == {"ttl": "7"}


def test_options_reach_the_store_and_are_checked_against_what_it_declares(project):
    (project / "chathistory.toml").write_text(PROFILES)
    with open_history(profile="short") as history:
        assert history.store.ttl == 1
        assert str(history.store.root) == f"{project}/base"
    (project / "chathistory.toml").write_text("store = 'file:x'\n[store_options]\nlock_timout = 1")
    with pytest.raises(ConfigError) as wrong:
        open_history()
    assert str(wrong.value) == (
        "file: has no option 'lock_timout'; did you mean 'lock_timeout'? (known: lock_timeout, ttl)"
    )
    assert wrong.value.__notes__ == [
        f"chathistory: the store is set here: {project}/chathistory.toml: store, store_options.lock_timout"
    ]


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("memory:", {"ttl": 5}),
        ("redis://h", {"ttl": 5, "db": 2, "socket_keepalive": False, "socket_timeout": 1.5}),
        ("mongodb://h", {"ttl": 5, "maxPoolSize": 5, "tls": True, "w": 1}),
        ("s3://bucket", {"ttl": 5, "timeout": 2.5}),
    ],
)
def test_options_may_be_numbers_and_truths(project, scheme, options):
    lines = [f"{name} = {str(value).lower()}" for name, value in options.items()]
    (project / "chathistory.toml").write_text(f"store = '{scheme}'\n[store_options]\n" + "\n".join(lines))
    with open_history() as history:
        assert history.store.ttl == 5.0


def test_an_unknown_scheme_is_an_error(project, monkeypatch):
    (project / "chathistory.toml").write_text("store = 'mongo://user:geheim@host'")
    with pytest.raises(PluginError, match="no installed backend serves mongo:; did you mean 'mongodb'") as wrong:
        open_history()
    assert SECRET not in str(wrong.value) + repr(wrong.value.__notes__)


def test_a_backend_whose_client_library_is_missing_names_the_extra(project, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("chathistory_redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    (project / "chathistory.toml").write_text("store = 'redis://host'")
    with pytest.raises(PluginError, match=r'pip install --upgrade "chathistory\[redis\]"'):
        open_history()


def test_without_a_store_the_error_says_how_to_set_one(project):
    for open_it in (open_history, ChatEngine.from_config):
        with pytest.raises(ConfigError, match=r"no store is configured: write store = .* or set CHATHISTORY_STORE"):
            open_it()


ENVIRONMENT = {"NAME": "value", "EMPTY": "", "TRICK": "${NAME}", "_1": "one", "ANTHROPIC_API_KEY": SECRET}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NAME}", "value"),
        ("a${NAME}b${_1}c", "avaluebonec"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${NAME:-default}", "value"),
        ("${NONE:-file:./a-b}", "file:./a-b"),
        ("${NONE:-}", ""),
        ("$${NAME}", "${NAME}"),
        ("$NAME $ $$ {NAME} pa$$word $}", "$NAME $ $$ {NAME} pa$$word $}"),
        ("${TRICK}", "${NAME}"),
        ({"a": ["${NAME}", {"b": "${NAME}"}], "c": 5}, {"a": ["value", {"b": "value"}], "c": 5}),
    ],
)
def test_references_are_resolved(text, value):
    assert expand(text, ENVIRONMENT) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${NONE}", "the environment variable NONE is not set"),
        ("${", "malformed reference"),
        ("${}", "malformed reference"),
        ("${NA ME}", "malformed reference"),
        ("${1}", "malformed reference"),
        ("${NAME", "malformed reference"),
        ("${NAME-x}", "malformed reference"),
        ("${ANTHROPIC_API_KEY}", "is a key for the API only"),
        ("${ANTHROPIC_AUTH_TOKEN:-x}", "is a key for the API only"),
        (["${NONE}"], "NONE is not set"),
    ],
)
def test_malformed_and_unset_references_are_errors(text, expected):
    with pytest.raises(ConfigError, match=expected) as wrong:
        expand(text, ENVIRONMENT)
    assert "value" not in str(wrong.value)
    assert SECRET not in str(wrong.value)


def test_which_variables_a_text_names():
    assert find_references("${A}$${B}${C:-d}${") == ("A", "C")
    assert find_references(5) == ()


def test_a_secret_comes_from_the_environment_by_reference(project, monkeypatch):
    (project / "chathistory.toml").write_text(
        'profile = "dev"\n[profiles.dev]\nstore = "file:./dev"\n'
        '[profiles.prod]\nstore = "${REDIS_URL}"\n[profiles.prod.store_options]\npassword = "${REDIS_PASSWORD}"\n'
    )
    assert load_settings().store is not None  # a value that is not in force is not resolved
    with pytest.raises(ConfigError) as wrong:
        load_settings(profile="prod")
    assert str(wrong.value) == (
        f"{project}/chathistory.toml: profiles.prod.store: the environment variable REDIS_URL is not set"
    )
    monkeypatch.setenv("REDIS_URL", f"redis://user:{SECRET}@host")
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    settings = load_settings(profile="prod")
    assert settings.store.options == {"password": SECRET}
    assert str(settings.sources["store"]) == f"{project}/chathistory.toml: profiles.prod.store (${{REDIS_URL}})"
    assert SECRET not in repr(settings) + repr(settings.sources)
    assert str(load_settings(profile="prod", store="memory:").store) == "memory:"


def test_a_prompt_is_not_in_the_repr(project):
    settings = load_settings(system=SECRET)
    assert settings.system == SECRET
    assert SECRET not in repr(settings)
