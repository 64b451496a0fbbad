"""The indexes: made once, by name, and checked, for what would happen without them is slow or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import IndexModel
from pymongo.errors import OperationFailure

from chathistory_mongodb.documents import Documents
from chathistory_mongodb.faults import Refused

__all__ = ["BY_ACTIVITY", "BY_KEY", "EXPIRING", "ensure_indexes"]

BY_ACTIVITY, EXPIRING, IN_ORDER, BY_KEY = "by_activity", "expiring", "in_order", "by_key"

_HEADS: Mapping[str, Mapping[str, int]] = {
    BY_ACTIVITY: {"_id.s": 1, "updated": 1, "_id.i": 1},  # of the _id, which nobody can change
    EXPIRING: {"expires": 1},
}
_SEGMENTS: Mapping[str, Mapping[str, int]] = {IN_ORDER: {"of": 1, "end": 1, "part": 1}, BY_KEY: {"key": 1, "of": 1}}
_EXPIRING = {"partialFilterExpression": {"expires": {"$gte": 0}}}  # a conversation for ever has no part in it
_MAY_NOT, _NO_SUCH_COLLECTION = 13, 26


def ensure_indexes(heads: Documents, segments: Documents) -> None:
    """Make the indexes that are not there. Raises `Refused` if one is another than it must be, or may not be made."""
    for collection, due in ((heads, _HEADS), (segments, _SEGMENTS)):
        present = _present(collection)
        _check(collection, present, due)
        missing = [name for name in due if name not in present]
        if missing:
            _make(collection, {name: due[name] for name in missing})


def _present(collection: Documents) -> dict[str, Mapping[str, Any]]:
    try:
        return {index["name"]: index for index in collection.list_indexes()}
    except OperationFailure as error:
        if error.code == _NO_SUCH_COLLECTION:
            return {}
        if error.code == _MAY_NOT:
            raise _forbidden(collection, "list") from error
        raise


def _check(
    collection: Documents, present: Mapping[str, Mapping[str, Any]], due: Mapping[str, Mapping[str, int]]
) -> None:
    for name, index in present.items():
        if name in due and dict(index["key"]) != due[name]:
            raise Refused(f"the index {name!r} of {collection.name} has other keys than {dict(due[name])}; drop it")
        if name == "_id_" and "collation" in index:
            raise Refused(
                f"{collection.name} has a collation of its own, under which different names or versions are equal"
            )


def _make(collection: Documents, due: Mapping[str, Mapping[str, int]]) -> None:
    models = [
        IndexModel(list(keys.items()), name=name, **(_EXPIRING if name == EXPIRING else {}))
        for name, keys in due.items()
    ]
    try:
        collection.create_indexes(models)
    except OperationFailure as error:
        if error.code == _MAY_NOT:
            raise _forbidden(collection, "make") from error
        raise


def _forbidden(collection: Documents, doing: str) -> Refused:
    return Refused(
        f"the user may not {doing} the indexes of {collection.name}; give the user the role readWrite, or have them "
        "made as docs/mongodb.md says"
    )
