"""The files on disk: readable lines, private modes, nothing outside the folder, no file of others touched."""

import json
import os
import shutil
import subprocess
import zlib

import pytest
from chathistory_file import FileStore
from file_samples import KEY, bodies_of, fill_store, fresh, names, path_of, revision

from chathistory import Key
from chathistory.errors import CorruptRecord, StoreRejected, StoreUnavailable


def test_every_line_is_json_and_the_last_is_the_head(store):
    head = fill_store(store, ['{"a":1}', '{"b":2}'], ['{"c":"\\u0000"}'])
    lines = path_of(store).read_text().split("\n")
    assert lines.pop() == ""
    parsed = [json.loads(line) for line in lines]
    records = [line for line in parsed if isinstance(line, list)]
    assert [(position, body) for position, _, body in records] == [(0, {"a": 1}), (1, {"b": 2}), (2, {"c": "\0"})]
    assert [crc for _, crc, _ in records] == [
        f"{zlib.crc32(body, position):08x}"
        for position, body in enumerate([b'{"a":1}', b'{"b":2}', b'{"c":"\\u0000"}'])
    ]
    commits = [(line, raw) for line, raw in zip(parsed, lines, strict=True) if isinstance(line, dict)]
    assert [line["at"] + line["size"] for line, _ in commits] == [path_of(store).read_bytes().index(raw.encode()) for _, raw in commits]  # fmt: skip  # noqa: E501
    assert all(line["crc"] == f"{zlib.crc32(raw[:-10].encode()):08x}" for line, raw in commits)
    commit = parsed[-1]
    assert (commit["commit"], commit["scope"], commit["id"]) == (2, "default", "support/42")
    assert (commit["start"], commit["end"]) == (0, 3)
    assert (commit["version"], commit["info"]) == (head.revision.version, {"title": "T"})


@pytest.mark.parametrize(
    "info",
    ["", "plain", '"quoted"', "{}", '{"a": 1}', '{"a":1,"a":2}', '{"x":NaN}', "{not json", '{"crc":1},"crc":2}', "{} ",
     '{"info":"},\\"crc\\":"}', '{"a":"\u2028é😀"}', "[1]", "null", "1", '{"deep":' + "[" * 5000 + "]" * 5000 + "}"],
)  # fmt: skip
def test_any_payload_comes_back_to_the_character_and_leaves_a_line_of_json(store, info):
    store.append(KEY, ["{}"], after=None, revision=revision(payload=info))
    with fresh(store) as other:
        assert other.read(KEY).head.revision.payload == info
    if "deep" not in info:
        json.loads(path_of(store).read_text().split("\n")[-2], parse_constant=pytest.fail)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_files_are_private_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with FileStore(tmp_path / "a" / "b") as store:
            head = fill_store(store, ["1", "2"])
            with path_of(store).open("ab") as file:
                file.write(b"torn")
            store.append(KEY, ["3"], after=head, revision=revision())
            modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "a").rglob("*")}
            store.forget(KEY, before=1)
            modes["forgotten"] = path_of(store).stat().st_mode & 0o7777
    finally:
        os.umask(before)
    assert {name: mode for name, mode in modes.items() if mode == 0o700}.keys() == {"b", "default", ".locks"}
    assert {mode for name, mode in modes.items() if name not in {"b", "default", ".locks"}} == {0o600}
    assert "support=2f42.aside" in modes
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o700


def test_the_date_of_a_file_is_updated(store):
    head = fill_store(store, ["1", "2"])
    assert path_of(store).stat().st_mtime_ns == head.revision.updated * 1000
    head = store.append(KEY, ["3"], after=head, revision=revision(updated=1_760_000_000_123_456))
    assert path_of(store).stat().st_mtime_ns == 1_760_000_000_123_456_000
    store.forget(KEY, before=2)
    assert path_of(store).stat().st_mtime_ns == 1_760_000_000_123_456_000


def test_a_conversation_is_one_file_and_leaves_nothing(store):
    fill_store(store, ["1", "2"])
    store.forget(KEY, before=1)
    assert names(path_of(store).parent) == ["support=2f42.jsonl"]
    assert store.delete(KEY)
    assert names(path_of(store).parent) == []


def test_foreign_files_are_neither_shown_nor_touched(store):
    fill_store(store, ["1"])
    folder, line = path_of(store).parent, path_of(store).read_bytes()
    foreign = {"notes.txt": b"x", ".hidden.jsonl": line, "Copy of it.jsonl": line, "other.jsonl": line, ".jsonl": line,
               "x\x01.jsonl": b"", "a.jsonl~": line, "stray.tmp": b"y"}  # fmt: skip
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jsonl").mkdir()
    shutil.copytree(folder, folder.parent / "archive")
    (folder.parent / "README").write_text("mine")
    assert [head.key for head in store.heads("default").items] == [KEY]
    assert list(store.keys()) == list(store.keys("default")) == [KEY]
    assert store.heads("archive").items == []
    assert store.delete(KEY)
    assert {name: (folder / name).read_bytes() for name in foreign} == foreign


def test_a_copy_under_another_name_does_not_count_as_that_conversation(store):
    fill_store(store, ["1"])
    other = Key("default", "other")
    path_of(store, other).write_bytes(path_of(store).read_bytes())
    with pytest.raises(CorruptRecord) as caught:
        store.read(other)
    assert caught.value.position is None
    with pytest.raises(CorruptRecord):
        store.append(other, ["2"], after=None, revision=revision())
    assert path_of(store, other).read_bytes() == path_of(store).read_bytes()


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_links_and_pipes_in_place_of_a_file_are_not_followed(store, tmp_path, kind):
    fill_store(store, ["1"], key=Key("default", "real"))
    outside, placed = tmp_path / "outside", path_of(store)
    {
        "link": lambda: (outside.write_text("secret"), placed.symlink_to(outside)),
        "dangling link": lambda: placed.symlink_to(outside),
        "pipe": lambda: os.mkfifo(placed),
        "folder": placed.mkdir,
    }[kind]()
    with pytest.raises(CorruptRecord):
        store.read(KEY)
    with pytest.raises((StoreRejected, StoreUnavailable)):
        store.append(KEY, ["2"], after=None, revision=revision())
    assert [head.key.id for head in store.heads("default").items] == ["real"]
    assert [key.id for key in list(store.keys())] == ["real"]
    assert outside.exists() == (kind == "link")
    assert not outside.exists() or outside.read_text() == "secret"


def test_ids_cannot_leave_the_folder(store, tmp_path):
    for name in ("../../escaped", "/etc/passwd", "..", ".", "a/../../b", ".locks", "x\\..\\y"):
        fill_store(store, ["1"], key=Key(name, name))
    assert names(tmp_path) == ["history"]
    folders = [name for name in names(store.root) if name != ".locks"]
    assert len(folders) == 7
    assert all(len(names(f"{store.root}/{folder}")) == 1 for folder in folders)


def test_long_batches_are_read_back_from_anywhere(store):
    bodies = [f"{number:05d}" * 100 for number in range(3000)]
    head = fill_store(store, ["first"], bodies, ["last"])
    assert bodies_of(store) == ["first", *bodies, "last"]
    assert [record.body for record in store.read(KEY, start=2500, stop=2502).records] == bodies[2499:2501]
    assert store.read(KEY, start=-1).records[0].position == head.end - 1


def test_jq_reads_it(store):
    fill_store(store, ['{"a":1}'], ['{"b":"é"}'])
    jq = shutil.which("jq")
    command = [jq, "-c", "."] if jq else ["python3", "-c", "import sys,json\nfor l in sys.stdin: print(json.loads(l))"]
    shown = subprocess.run(command, input=path_of(store).read_bytes(), capture_output=True, check=True).stdout
    assert len(shown.splitlines()) == 4
    if jq:
        said = subprocess.run(
            [jq, "-c", "arrays | .[2]"], input=path_of(store).read_bytes(), capture_output=True, check=True
        )
        assert said.stdout.decode() == '{"a":1}\n{"b":"é"}\n'
