"""For tests: the contract of `HistoryStore` as a pytest class, and a fake of Claude's Messages API.

`HistoryStoreContract` needs pytest. `FakeMessagesAPI` needs the Anthropic SDK only for the clients that it returns.
`CertifyHooks` are what the author of a backend passes to the pytest plugin `chathistory.testing.certify`, in addition
to a URL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chathistory.testing.certify.author_hooks import CertifyHooks
    from chathistory.testing.contract import HistoryStoreContract
    from chathistory.testing.fake_api import FakeMessagesAPI

__all__ = ["CertifyHooks", "FakeMessagesAPI", "HistoryStoreContract"]

_LATER = {
    "CertifyHooks": "chathistory.testing.certify.author_hooks",
    "HistoryStoreContract": "chathistory.testing.contract",
    "FakeMessagesAPI": "chathistory.testing.fake_api",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
