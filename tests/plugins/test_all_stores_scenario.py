"""A scenario with a store, recorded line by line: the same on every backend."""

from __future__ import annotations

import asyncio
import io
import json
import re
from datetime import timedelta

import pytest
from sample_conversations import said, user

from chathistory import AsyncHistory, History, open_store
from chathistory.errors import ConversationExists, InvalidInput


def scenario(store) -> list[str]:
    """Run the scenario on a store and return its transcript, without random tokens."""
    recorded: list[str] = []
    history = History(store)

    def tell(what, value):
        text = json.dumps(value, default=repr, ensure_ascii=False)
        text = re.sub(r"\b[0-9a-f]{28}\b", "TOKEN", text)
        recorded.append(f"{what} => {text}")

    chat = history.conversation("support/42")
    for number in range(30):
        chat.append([user(f"question {number}"), said(f"answer {number}")])
    chat.annotate(title="Tea & Co", tags=["tea", "ü"], metadata={"customer": 7})
    tell("messages", chat.messages())
    page = chat.last_entries(7)
    tell("newest", [entry.message for entry in page])
    tell("before", [entry.message for entry in chat.last_entries(7, before=page[0].position)])
    fork = chat.fork("support/42 again", at=21)
    tell("same prefix", fork.messages() == chat.messages()[:21])
    tell("fork", fork.messages())
    fork.append(said("another answer"))
    chat.rewind(to=59)
    chat.append(said("regenerated"))
    tell("regenerated", chat.messages()[-2:])
    tell("other scope", chat.fork("copy", scope="other").state().identity.origin.to_dict())
    for target in ("support/42", "support/42 again"):
        try:
            chat.fork(target)
        except ConversationExists as error:
            tell("conflict", str(error))
    try:
        chat.fork("x", at=1000)
    except InvalidInput as error:
        tell("refused", str(error))
    for number in range(12):
        history.conversation(f"n{number}").append([user(f"hello {number}")])
        if number % 2:
            history.conversation(f"n{number}").annotate(tags=["odd"])
    for wanted in ({}, {"tag": "odd"}, {"title": "TEA"}, {"metadata": {"customer": 7}}, {"model": "claude-sonnet-5-5"}):
        rows = history.list(limit=50, **wanted).items
        tell(f"listing {wanted}", [(r.id, r.title, r.messages, r.records, r.tokens, r.origin) for r in rows])
    out = io.BytesIO()
    tell("export", history.export_to(out, all_scopes=True))
    tell("texts", _lines(out.getvalue()))
    tell("dry", _kept(history.prune(count=5, age=timedelta(days=1), ttl=timedelta(hours=1))))
    tell("wet", _kept(history.prune(count=5, dry_run=False)))
    tell("left", [row.id for row in history.list().items])
    gone = history.erase("default")
    tell("erased", sorted((each.id, each.messages, each.records) for each in gone.removed))
    tell("nothing", [gone.left, history.list().items, [key.scope for key in list(store.keys())]])
    tell("import", history.import_from(io.BytesIO(out.getvalue()), all_scopes=True))
    tell("again", history.import_from(io.BytesIO(out.getvalue()), all_scopes=True))
    tell("back", [row.id for row in history.list(limit=50).items])
    tell("back", chat.messages() + fork.messages())
    tell("asyncio", asyncio.run(_awaited(store)))
    return recorded


def _lines(data: bytes) -> list[str]:
    """Return the lines of an export in an order of their own: each backend gives keys in its own."""
    lines = [json.loads(line) for line in data.splitlines()]
    return sorted(
        json.dumps([line.get("kind"), line.get("message"), line.get("id") if "start" in line else None])
        for line in lines
    )


def _kept(found) -> list:
    return [found.dry_run, found.kept, [(gone.id, gone.reason, gone.messages, gone.records) for gone in found.removed]]


async def _awaited(store) -> list:
    async with AsyncHistory(store) as history:
        chat = history.conversation("support/42")
        fork = await chat.fork("async", at=4)
        rows = (await history.list(limit=3, tag="tea")).items
        newest = [entry.message for entry in await chat.last_entries(2, before=3)]
        with open_store("memory:") as other:
            report = await history.copy_to(other, all_scopes=True)
            same = await AsyncHistory(other).conversation("async").messages() == await fork.messages()
        out = io.BytesIO()
        written = await history.export_to(out, all_scopes=True)
        gone = await history.erase("default")
        out.seek(0)
        back = await history.import_from(out, scope="elsewhere")
        kept = await history.prune(scope="elsewhere", count=1)
        return [len(rows), newest, report.copied, same, written.records, gone.records, back.copied, kept.kept]


@pytest.fixture(scope="module")
def transcript():
    with open_store("memory:") as store:
        return scenario(store)


def test_a_store_behaves_the_same_on_every_backend(store, transcript):
    assert scenario(store) == transcript


def test_the_transcript_tells_what_it_should(transcript):
    recorded = dict(line.split(" => ", 1) for line in transcript)
    assert recorded["same prefix"] == "true"
    assert len(json.loads(recorded["messages"])) == 60
    assert [m["content"] for m in json.loads(recorded["before"])][-1] == "question 26"
    assert json.loads(recorded["regenerated"])[0]["content"] == "question 29"
    assert json.loads(recorded["other scope"]) == {"scope": "default", "id": "support/42", "position": 63}
    titled = [row[:3] for row in json.loads(recorded["listing {'title': 'TEA'}"])]
    assert titled == [["support/42", "Tea & Co", 60], ["support/42 again", "Tea & Co", 22]]
    assert [row[0] for row in json.loads(recorded["listing {'tag': 'odd'}"])] == ["n11", "n9", "n7", "n5", "n3", "n1"]
    assert json.loads(recorded["dry"])[:2] == [True, 5]
    assert json.loads(recorded["left"]) == ["n11", "n10", "n9", "n8", "n7"]
    assert json.loads(recorded["nothing"]) == [[], [], ["other"]]
    assert json.loads(recorded["asyncio"])[0] == 3
