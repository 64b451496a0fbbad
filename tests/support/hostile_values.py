"""Values of any type, size and depth, as JSON from outside may have them, and lines made of such values."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from chathistory.log.entry import compute_checksum
from chathistory.log.events import EVENT_CLASSES

HUGE = 10**400
DEEP = "[" * 5000 + "]" * 5000


# Values that JSON can contain: any type, any size, any depth.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.sampled_from([0, -1, 2**53, 2**63, HUGE, -HUGE]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(["many", "y", "\ud800", "2026-01-31", "x" * 5000]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "position", "lease_until", "scope", "a", "type", "text"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


def as_text(value: object) -> str:
    """Return JSON text, including values that only a lax writer accepts: NaN, infinities, integers of any size."""
    return json.dumps(value, ensure_ascii=True)


def line_of(values: dict) -> str:
    """Return a line of these values with the right checksum."""
    rest = f",{as_text(values)[1:]}"
    return f'{{"sum":"{compute_checksum(rest)}"{rest}'


DATA = (
    *("path", "messages", "turns", "tokens", "hidden_turns", "view_since", "view_start", "cut_position"),
    *("preamble_tokens", "lost", "was_sent", "state", "view", "fingerprints", "drop_stale_thinking", "lease_until"),
    *("response", "title", "tags", "metadata", "copy_of"),
)
lines = st.fixed_dictionaries(
    {
        "v": st.sampled_from([2, 2, 2, 3]) | values,
        "id": st.just("e") | values,
        "kind": st.sampled_from(sorted({*EVENT_CLASSES, "hologram"})) | values,
    },
    optional={
        "at": st.just(1) | values,
        "turn": values,
        "data": st.dictionaries(st.sampled_from(DATA), values, max_size=4) | values,
        "message": st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant"]) | values},
            optional={"content": st.text() | st.lists(st.dictionaries(st.just("type"), values)) | values},
        )
        | values,
    },
)
