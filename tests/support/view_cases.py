"""Cases for each rule of the view: what is stored, what is sent, and what the report says."""

from __future__ import annotations

from faulty_stores import said, user

MARK = {"type": "ephemeral"}
MISSING = "This tool call was interrupted: there is no result."


def text(words="x", **more):
    return {"type": "text", "text": words, **more}


def call(id, **more):
    return {"type": "tool_use", "id": id, "name": "f", "input": {"cache_control": None, "caller": None}, **more}


def result(id, content="ok", **more):
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def lost(id, **more):
    return {"type": "tool_result", "tool_use_id": id, "content": MISSING, "is_error": True, **more}


def search(id):
    return {"type": "server_tool_use", "id": f"srvtoolu_{id}", "name": "web_search", "input": {"query": "x"}}


def found(id, **more):
    return {"type": "web_search_tool_result", "tool_use_id": f"srvtoolu_{id}", "content": [], **more}


THOUGHT = {"type": "thinking", "thinking": "", "signature": "EqQ="}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
SNIPPET = {"type": "search_result", "source": "s", "title": "t"}


FALLBACK = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
CITED = {"type": "web_search_result_location", "cited_text": "x", "encrypted_index": "E", "title": None, "url": "u"}


def U(*blocks):  # noqa: N802
    return {"role": "user", "content": list(blocks)}


def A(*blocks, stop=None):  # noqa: N802
    return {"role": "assistant", "content": list(blocks)} | ({"stop": stop} if stop else {})


S = {"role": "system", "content": "s"}
HI, HO = user("hi"), said("ho")

# name: (what is stored, what is sent, positions of what is sent, positions of repairs)
RULES = {
    "nothing": ([], [], [], []),
    "as it is": ([HI, HO, HI], [HI, HO, HI], [0, 1, 2], []),
    "two users in a row": ([HI, HI, HO], [HI, HI, HO], [0, 1, 2], []),
    "two replies in a row": ([HI, HO, HO], [HI, HO, HO], [0, 1, 2], []),
    "begins with a reply": ([HO, HI], [HI], [1], [0]),
    "begins with a call": ([A(call("a")), U(result("a"), text())], [U(text())], [1], [0, 1]),
    "begins with a result": ([U(result("a")), HI], [HI], [1], [0]),
    "only a reply": ([HO], [], [], [0]),
    "empty text": ([user(""), HO, HI], [HI], [2], [0, 1]),
    "blank text": ([user(" \n\u2003"), HI, HO], [HI, HO], [1, 2], [0]),
    "empty content": ([HI, A(), HI], [HI, HI], [0, 2], [1]),
    "empty block": ([U(text(""), text(), text(" ")), HO], [U(text()), HO], [0, 1], [0, 0]),
    "empty block in a result": (
        [HI, A(call("a")), U(result("a", [text(""), text()]))],
        [HI, A(call("a")), U(result("a", [text()]))],
        [0, 1, 2],
        [2],
    ),
    "text None of the SDK": ([HI, A({"type": "text", "text": None}, text())], [HI, A(text())], [0, 1], [1]),
    "empty thinking": ([HI, A(THOUGHT, text())], [HI, A(THOUGHT, text())], [0, 1], []),
    "marker": ([U(text(cache_control=MARK)), HO], [U(text()), HO], [0, 1], []),
    "marker within a result": (
        [HI, A(call("a", cache_control=MARK)), U(result("a", [text(cache_control=MARK)], cache_control=MARK))],
        [HI, A(call("a")), U(result("a", [text()]))],
        [0, 1, 2],
        [],
    ),
    "marker within a search result": (
        [U(SNIPPET | {"content": [text(cache_control=MARK)]})],
        [U(SNIPPET | {"content": [text()]})],
        [0],
        [],
    ),
    "marker None": ([U(text(cache_control=None))], [U(text())], [0], []),
    "nulls of model_dump": (
        [HI, A(call("a", caller=None, toolset_name=None)), U(result("a"))],
        [HI, A(call("a")), U(result("a"))],
        [0, 1, 2],
        [],
    ),
    "caller and toolset": (
        [HI, A(call("a", caller={"type": "direct"}, toolset_name="t")), U(result("a", toolset_name="t"))],
        [HI, A(call("a", caller={"type": "direct"}, toolset_name="t")), U(result("a", toolset_name="t"))],
        [0, 1, 2],
        [],
    ),
    "parsed_output": ([HI, A(text(parsed_output={"x": 1}))], [HI, A(text())], [0, 1], []),
    "document of the assistant": ([HI, A(DOCUMENT, text())], [HI, A(text())], [0, 1], [1]),
    "document of the user": ([U(DOCUMENT)], [U(DOCUMENT)], [0], []),
    "citations of the user": ([U(text(citations=[{"type": "x"}]))], [U(text())], [0], [0]),
    "no citations of the user": ([U(text(citations=[]))], [U(text(citations=[]))], [0], []),
    "citations in a search result": (
        [U(SNIPPET | {"content": [text(citations=[{"type": "x"}])]})],
        [U(SNIPPET | {"content": [text()]})],
        [0],
        [0],
    ),
    "citations of Claude": ([HI, A(text(citations=[CITED]))], [HI, A(text(citations=[CITED]))], [0, 1], []),
    "citations that nobody makes": ([HI, A(text(citations=[{"x": None}]))], [HI, A(text())], [0, 1], [1]),
    "lone surrogate": ([user("a\ud800b😀"), HO], [user("a\ufffdb😀"), HO], [0, 1], [0]),
    "lone surrogate deep within": (
        [HI, A(call("a") | {"input": {"\udc00": ["\ud800"]}}), U(result("a"))],
        [HI, A(call("a") | {"input": {"\ufffd": ["\ufffd"]}}), U(result("a"))],
        [0, 1, 2],
        [1],
    ),
    "call and result": (
        [HI, A(call("a")), U(result("a"), text())],
        [HI, A(call("a")), U(result("a"), text())],
        [0, 1, 2],
        [],
    ),
    "call at the end": ([HI, A(call("a"))], [HI, A(call("a")), U(lost("a"))], [0, 1, -1], [-1]),
    "call of a toolset at the end": (
        [HI, A(call("a", toolset_name="t"))],
        [HI, A(call("a", toolset_name="t")), U(lost("a", toolset_name="t"))],
        [0, 1, -1],
        [-1],
    ),
    "calls in two messages": (
        [HI, A(call("a")), A(call("b"))],
        [HI, A(call("a")), A(call("b")), U(lost("a"), lost("b"))],
        [0, 1, 2, -1],
        [-1],
    ),
    "typed on": ([HI, A(call("a")), HI], [HI, A(call("a")), U(lost("a"), text("hi"))], [0, 1, 2], [2]),
    "half of the results": (
        [HI, A(call("a"), call("b")), U(result("b"))],
        [HI, A(call("a"), call("b")), U(result("b"), lost("a"))],
        [0, 1, 2],
        [2],
    ),
    "results after words": (
        [HI, A(call("a")), U(text(), result("a"))],
        [HI, A(call("a")), U(result("a"), text())],
        [0, 1, 2],
        [2],
    ),
    "results in two messages": (
        [HI, A(call("a"), call("b")), U(result("a")), U(result("b"))],
        [HI, A(call("a"), call("b")), U(result("a"), result("b"))],
        [0, 1, 2],
        [2],
    ),
    "results in another order": (
        [HI, A(call("a"), call("b")), U(result("b"), result("a"))],
        [HI, A(call("a"), call("b")), U(result("b"), result("a"))],
        [0, 1, 2],
        [],
    ),
    "result twice": (
        [HI, A(call("a")), U(result("a"), result("a", "other"))],
        [HI, A(call("a")), U(result("a"))],
        [0, 1, 2],
        [2, 2],
    ),
    "result of nobody": ([HI, HO, U(result("z"), text())], [HI, HO, U(text())], [0, 1, 2], [2]),
    "result too late": (
        [HI, A(call("a")), HI, HO, U(result("a")), HI],
        [HI, A(call("a")), U(lost("a"), text("hi")), HO, HI],
        [0, 1, 2, 3, 5],
        [2, 4],
    ),
    "system after the user": ([HI, S, HO], [HI, S, HO], [0, 1, 2], []),
    "system at the end": ([HI, S], [HI, S], [0, 1], []),
    "system first": ([S, HI, HO], [HI, S, HO], [1, 0, 2], [0]),
    "system alone": ([S], [], [], [0]),
    "system before the user": ([HI, HO, S, HI], [HI, HO, HI, S], [0, 1, 3, 2], [2]),
    "system between replies": ([HI, HO, S, HO], [HI, HO, HO], [0, 1, 3], [2]),
    "system after a server's result": (
        [HI, A(search("s"), found("s")), S],
        [HI, A(search("s"), found("s")), S],
        [0, 1, 2],
        [],
    ),
    "system between call and result": (
        [HI, A(call("a")), S, U(result("a"))],
        [HI, A(call("a")), U(result("a")), S],
        [0, 1, 3, 2],
        [2],
    ),
    "two systems": ([HI, S, S, HO], [HI, S, S, HO], [0, 1, 2, 3], []),
    "paused": ([HI, A(search("s"), stop="pause_turn")], [HI, A(search("s"))], [0, 1], []),
    "paused and gone on": (
        [HI, A(search("s"), stop="pause_turn"), A(found("s"), text())],
        [HI, A(search("s")), A(found("s"), text())],
        [0, 1, 2],
        [],
    ),
    "paused and typed on": ([HI, A(text(), search("s"), stop="pause_turn"), HI], [HI, A(text()), HI], [0, 1, 2], [1]),
    "paused with nothing else and typed on": ([HI, A(search("s"), stop="pause_turn"), HI], [HI, HI], [0, 2], [1]),
    "paused after a system message and typed on": (
        [HI, S, A(search("s"), stop="pause_turn"), HI],
        [HI, HI, S],
        [0, 3, 1],
        [2, 1],
    ),
    "server's result of nobody after a system message": ([HI, S, A(found("s")), HI], [HI, HI, S], [0, 3, 1], [2, 1]),
    "mixed turn": (
        [HI, A(search("s"), call("a")), U(result("a")), A(found("s"), text()), HI],
        [HI, A(search("s"), call("a")), U(result("a")), A(found("s"), text()), HI],
        [0, 1, 2, 3, 4],
        [],
    ),
    "mixed turn and typed on": (
        [HI, A(search("s"), call("a")), U(result("a"), text())],
        [HI, A(call("a")), U(result("a"), text())],
        [0, 1, 2],
        [1],
    ),
    "mixed turn that ends without the server's result": (
        [HI, A(search("s"), call("a")), U(result("a")), HO, HI],
        [HI, A(call("a")), U(result("a")), HO, HI],
        [0, 1, 2, 3, 4],
        [1],
    ),
    "server's result of nobody": ([HI, A(found("s"), text())], [HI, A(text())], [0, 1], [1]),
    "server's result before its call": (
        [HI, A(found("s"), search("s"), text()), HI],
        [HI, A(text()), HI],
        [0, 1, 2],
        [1, 1],
    ),
    "refused": ([HI, A(text(), stop="refusal"), U(text("b"))], [U(text("b"))], [2], [1]),
    "refused, empty": ([HI, HO, HI, A(stop="refusal")], [HI, HO], [0, 1], [3]),
    "refused in a tool turn": (
        [HI, HO, HI, A(call("a")), U(result("a")), A(stop="refusal"), HI],
        [HI, HO, HI],
        [0, 1, 6],
        [5],
    ),
    "refused right after a reply": ([HI, HO, A(stop="refusal"), HI], [HI, HO, HI], [0, 1, 3], [2]),
    "before a fallback": (
        [HI, A(THOUGHT, call("a"), FALLBACK, text())],
        [HI, A(FALLBACK, text())],
        [0, 1],
        [1],
    ),
    "the same call twice": (
        [HI, A(call("a")), U(result("a")), A(call("a")), U(result("a"))],
        None,  # any messages that the API takes
        None,
        None,
    ),
    "thinking without a signature": ([HI, A(THOUGHT | {"signature": ""}, text())], [HI, A(text())], [0, 1], [1]),
}
