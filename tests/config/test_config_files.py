"""Which configuration files are read; their errors name file and key and never quote a value."""

from __future__ import annotations

import contextlib
import os

import pytest

from chathistory import load_settings, open_history
from chathistory.config.files import check_owner
from chathistory.errors import ConfigError

SECRET = "geheim"


def write(folder, text, name="chathistory.toml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def model(**given):
    return load_settings(**given).model


def wrong(**given):
    with pytest.raises(ConfigError) as caught:
        load_settings(**given)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, OSError)
    return str(caught.value)


def test_the_nearest_file_above_is_read_and_no_other(project):
    write(project.parent, 'model = "above"\nscope = "above"')
    assert model() == "above"
    write(project, 'model = "here"')
    settings = load_settings()
    assert (settings.model, settings.scope) == ("here", "default")
    assert settings.files == (project / "chathistory.toml",)


@pytest.mark.parametrize("name", ["chathistory.toml", "pyproject.toml"])
def test_the_search_ends_at_the_root_of_a_repository(project, name):
    write(
        project.parent, '[tool.chathistory]\nmodel = "above"' if name == "pyproject.toml" else 'model = "above"', name
    )
    assert model() == "above"
    (project / ".git").mkdir()
    assert model() != "above"
    (project / ".git").rmdir()
    (project.parent / ".git").write_text("gitdir: elsewhere")
    assert model() == "above"


def test_the_search_ends_at_home(project, home):
    write(home.parent, 'model = "outside"')
    assert model() != "outside"
    write(home, 'model = "home"')
    assert model() == "home"


def test_the_search_ends_at_a_home_that_is_a_link(project, home, monkeypatch):
    write(home.parent, 'model = "outside"')
    link = home.parent / "link"
    link.symlink_to(home)
    monkeypatch.setenv("HOME", str(link))
    assert model() != "outside"


def test_outside_of_home_it_goes_up_to_the_root(home, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere" / "deep"
    write(folder.parent, 'model = "up"')
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert model() == "up"


def test_pyproject_is_read_if_it_has_our_table(project):
    write(project.parent, '[tool.chathistory]\nmodel = "above"', "pyproject.toml")
    for other in ("", "[project]\nname = 'x'", "# chathistory\n[tool]\nother = 1", "broken ="):
        write(project, other, "pyproject.toml")
        assert model() == "above"
    write(project, "[tool.chathistory]\nmodel = 'here'\n[tool.chathistory.profiles.p]\nscope = 's'", "pyproject.toml")
    assert model() == "here"
    source = load_settings(profile="p").sources["scope"]
    assert str(source) == f"{project}/pyproject.toml: tool.chathistory.profiles.p.scope"


def test_the_users_own_file(project, users):
    users.write_text('model = "own"')
    assert model() == "own"
    assert load_settings().sources["model"].found is False


def test_a_named_file_is_read_in_place_of_all_others(project, users, monkeypatch):
    users.write_text('model = "own"\nscope = "own"')
    write(project, 'model = "found"')
    other = write(project, 'max_tokens = 5\nstore = "file:x"', "other.toml")
    for settings in (load_settings(config=other), load_settings(config="other.toml")):
        assert (settings.max_tokens, settings.scope, settings.files) == (5, "default", (other,))
        assert settings.sources["store"].found is False
    monkeypatch.setenv("CHATHISTORY_CONFIG", str(other))
    assert load_settings().max_tokens == 5
    assert load_settings(config=project / "chathistory.toml").model == "found"
    assert load_settings(config=os.devnull).model == "claude-sonnet-5-5"
    project_file = write(project, "[tool.chathistory]\nmodel = 'p'", "pyproject.toml")
    assert model(config=project_file) == "p"


def test_a_named_file_must_be_there(project):
    assert wrong(config="nowhere.toml") == f"{project}/nowhere.toml: No such file or directory"
    assert "Is a directory" in wrong(config=project)
    write(project, "", "pyproject.toml")
    assert wrong(config="pyproject.toml") == f"{project}/pyproject.toml: must have a table [tool.chathistory]"


def test_a_folder_named_like_the_file_is_not_read(project):
    (project / "chathistory.toml").mkdir()
    write(project.parent, 'model = "above"')
    assert model() == "above"


def test_a_folder_that_was_removed_has_nothing_to_find(project, users):
    users.write_text('model = "own"')
    project.rmdir()
    assert model() == "own"


def test_a_byte_order_mark_is_no_harm(project):
    (project / "chathistory.toml").write_bytes(b'\xef\xbb\xbfmodel = "marked"')
    assert model() == "marked"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'store = "{SECRET}', ": is not valid TOML (at "),
        (f"store = {SECRET}", ": is not valid TOML (at line 1, column 9)"),
        (f"scope = 'a'\nmodel = 5{SECRET}", ": is not valid TOML (at line 2, column 10)"),
        (f"[{SECRET}]\n[{SECRET}]", ": is not valid TOML (at line 2"),
        (f"max_tokens = {'1' * 5000}", ": is not valid TOML"),
        (b"model = '\xff'", ": must be text in UTF-8"),
        (
            f"stroe = '{SECRET}'",
            ": there is no setting 'stroe'; did you mean 'store'? (known: context_editing, max_tokens, ",
        ),
        (f"max-tokens = '{SECRET}'", ": there is no setting 'max-tokens'; did you mean 'max_tokens'?"),
        (f"'redis://u:{SECRET}@h' = 1", ": there is no setting of that name (known: "),
        (f"[trimmings]\nx = '{SECRET}'", ": there is no setting 'trimmings'"),
        (f"store = ['{SECRET}']", ": store: a store URL must be text"),
        ("store = ''", ": store: a store URL must begin with a scheme"),
        (f"store = '{SECRET}'", ": store: a store URL must begin with a scheme"),
        (f"system = ['{SECRET}']", ": system: must be text"),
        ("scope = ''", ": scope: must be text that is not empty"),
        (f"max_tokens = '{SECRET}'", ": max_tokens: must be an integer above 0"),
        (f"trimming = '{SECRET}'", ": trimming: must be a table"),
        (f"trimming.trigger_tokens = '{SECRET}'", ": trimming.trigger_tokens: must be an integer above 0"),
        (f"trimming.keep_age = '{SECRET}'", ": trimming.keep_age: must be a duration, such as 90s"),
        (
            f"trimming.keep_tokns = '{SECRET}'",
            ": trimming: there is no setting 'keep_tokns'; did you mean 'keep_tokens'",
        ),
        ("trimming.keep_turns = 5", ": trimming.keep_turns: trigger_turns and keep_turns must be set together"),
        (
            "trimming = {keep_turns = 5, trigger_turns = 4}",
            ": trimming.keep_turns: keep_turns must not be more than trigger_turns",
        ),
        (
            "trimming.compaction = true",
            ": trimming.compaction: compaction needs a threshold: set trigger_tokens and keep_tokens",
        ),
        (f"trimming.compaction = '{SECRET}'", ": trimming.compaction: must be true or false"),
        (f"context_editing = '{SECRET}'", ": context_editing: must be a table"),
        (f"context_editing.clear = '{SECRET}'", ": context_editing: there is no setting 'clear'"),
        (f"context_editing.compact = '{SECRET}'", ": context_editing.compact: must be true or false"),
        (
            f"[context_editing.compact]\npause_after_compaction = '{SECRET}'",
            ": context_editing.compact: ContextEditing: compact: must not set pause_after_compaction",
        ),
        ("max_tokens = 0", ": max_tokens: must be an integer above 0"),
        ("max_tokens = true", ": max_tokens: must be an integer above 0"),
        ("max_tokens = 1.5", ": max_tokens: must be an integer above 0"),
        ("stand_in = true", ": there is no setting 'stand_in'"),
        (f"store_options = '{SECRET}'", ": store_options: must be a table"),
        (f"[store_options]\nttl = '{SECRET}'", ": store_options.ttl: needs a store; set `store` as well"),
        (
            f"store = 'file:x'\n[store_options]\nttl = ['{SECRET}']",
            ": store_options.ttl: must be text, a number",
        ),
        (
            f"store = 'file:x?ttl={SECRET}'\n[store_options]\nttl = 3",
            ": store_options.ttl: the option 'ttl' is given",
        ),
        (f"profile = ['{SECRET}']", ": profile: must be the name of a profile"),
        (
            "profile = 'prdo'\n[profiles.prod]",
            ": profile: there is no profile 'prdo'; did you mean 'prod'? (known",
        ),
        ("profile = 'prod'", ": profile: there is no profile 'prod' (known: none)"),
        (f"profiles = '{SECRET}'", ": profiles: must be a table"),
        (f"profiles.prod = '{SECRET}'", ": profiles.prod: must be a table"),
        (f"[profiles.prod]\nmodle = '{SECRET}'", ": profiles.prod: there is no setting 'modle'; did you mean 'model'?"),
        ("[profiles.prod]\nprofile = 'x'", ": profiles.prod: there is no setting 'profile'"),
        (f"profiles.prod.store_options = '{SECRET}'", ": profiles.prod.store_options: must be a table"),
    ],
)
def test_an_error_names_file_and_key_and_not_the_value(project, text, expected):
    (project / "chathistory.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert f"{project}/chathistory.toml{expected}" in wrong()


@pytest.mark.parametrize("table", ["tool = 1 # chathistory", "[tool]\nchathistory = 1"])
def test_pyproject_with_a_value_in_place_of_a_table(project, table):
    write(project, table, "pyproject.toml")
    if "[tool]" in table:
        assert wrong() == f"{project}/pyproject.toml: tool.chathistory: must be a table"
    else:
        assert load_settings().files == ()


@pytest.fixture
def give_away(monkeypatch):
    """Let a file be somebody else's: root can give it away, others can only be somebody else themselves."""

    def give_away(path):
        if os.geteuid() == 0:
            os.chown(path, 54321, 54321)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 54321)

    return give_away


@pytest.mark.parametrize("name", ["chathistory.toml", "pyproject.toml"])
def test_a_found_file_of_somebody_else_is_refused_and_a_named_one_is_not(project, give_away, name):
    text = "[tool.chathistory]\nmodel = 'theirs'" if name == "pyproject.toml" else "model = 'theirs'"
    path = write(project.parent, text, name)
    assert model() == "theirs"
    give_away(path)
    error = wrong()
    assert f"{path}: belongs to another user" in error
    assert "--config or CHATHISTORY_CONFIG" in error
    assert model(config=path) == "theirs"


def test_a_pyproject_without_our_table_may_belong_to_anybody(project, give_away):
    give_away(write(project.parent, "# chathistory\n[project]\nname = 'x'", "pyproject.toml"))
    assert load_settings().files == ()


def test_the_users_own_file_may_belong_to_anybody(users, project, give_away):
    users.write_text("model = 'managed'")
    give_away(users)
    assert model() == "managed"


@pytest.mark.parametrize(("owner", "good"), [(1000, True), (0, True), (1001, False)])
def test_the_owner_of_a_file_must_be_the_user_or_root(monkeypatch, tmp_path, owner, good):
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    with contextlib.nullcontext() if good else pytest.raises(ConfigError, match="another user"):
        check_owner(tmp_path, owner)


def test_without_file_owners_all_files_are_read(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "geteuid", raising=False)
    check_owner(tmp_path, 1001)


def test_an_unreadable_file_is_an_error(project):
    path = project / "chathistory.toml"
    path.symlink_to(path)
    assert f"{path}: cannot be read: " in wrong()


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:./history", "{project}/history"),
        ("file:history", "{project}/history"),
        ("file:../a b#?ttl=5", "{parent}/a b#"),
        ("file:a%3Fb", "{project}/a?b"),
        ("file:~/history", "{home}/history"),
        ("file:/abs/history", "/abs/history"),
        ("file:///abs/history", "/abs/history"),
    ],
)
def test_a_relative_path_in_a_file_is_relative_to_its_folder(project, home, monkeypatch, url, root):
    write(project, f"store = '{url}'")
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    with open_history() as history:
        assert str(history.store.root) == root.format(project=project, parent=project.parent, home=home)


@pytest.mark.parametrize("url", ["file://host/history", "file:", "file:?ttl=5"])
def test_a_url_without_a_path_stays_an_error(project, url):
    write(project, f"store = '{url}'")
    with pytest.raises(ConfigError, match=r"file: (must not name a host|must have the path of a folder)"):
        open_history()


def test_a_relative_path_from_elsewhere_is_relative_to_the_working_directory(project, monkeypatch):
    monkeypatch.setenv("CHATHISTORY_STORE", "file:./history")
    write(project.parent, "scope = 'x'")
    for given in ({}, {"store": "file:./history"}):
        with open_history(**given) as history:
            assert str(history.store.root) == f"{project}/history"
            assert history.scope == "x"
