"""LangChain's message histories (`langchain-community`, and `langchain-mongodb`), as their documentation uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from ..samples import Turn, fresh_name
from .library_base import MeasuredLibrary

__all__ = ["LangchainFile", "LangchainMongo", "LangchainRedis", "LangchainSQLite"]

_CLASSES: dict[str, Callable[..., Any]] = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}
_ROLES = {"human": "user", "ai": "assistant", "system": "system"}


class _Langchain(MeasuredLibrary):
    _made: ClassVar[bool] = True  # whether an object is kept for a conversation

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._chats: dict[str, BaseChatMessageHistory] = {}

    def append(self, name: str, turn: Turn) -> object:
        return self._chat(name).add_messages([_CLASSES[message["role"]](message["content"]) for message in turn])

    def fill(self, name: str, turns: list[Turn]) -> None:
        self.append(name, [message for turn in turns for message in turn])

    def tail(self, name: str) -> list[Any]:
        return self._chat(name).messages[-20:]

    def load(self, name: str) -> list[Any]:
        return self._chat(name).messages

    def texts(self, name: str) -> list[str]:
        return [each.content if isinstance(each.content, str) else each.content[0]["text"] for each in self.load(name)]

    def kept(self, given: Any) -> Any:
        name = fresh_name()
        self.append(name, [given])
        (found,) = self._open_history(name).messages
        return {"role": _ROLES[found.type], "content": found.content}

    def _chat(self, name: str) -> BaseChatMessageHistory:
        chat = self._chats.get(name)
        if chat is None:
            chat = self._chats[name] = self._open_history(name)
        return chat

    def _open_history(self, name: str) -> BaseChatMessageHistory:
        raise NotImplementedError


class LangchainFile(_Langchain):
    """`FileChatMessageHistory`: one JSON file, rewritten with every message."""

    name: ClassVar[str] = "langchain file"
    imports: ClassVar[str] = "from langchain_community.chat_message_histories import FileChatMessageHistory"

    def fill(self, name: str, turns: list[Turn]) -> None:
        import json
        from pathlib import Path

        from langchain_core.messages import messages_to_dict

        messages = [_CLASSES[message["role"]](message["content"]) for turn in turns for message in turn]
        Path(self._path(name)).write_text(json.dumps(messages_to_dict(messages)))  # its own way would be quadratic

    def _path(self, name: str) -> str:
        return f"{self.place.removeprefix('file:')}/langchain-{name}.json"

    def _opened(self, name: str) -> BaseChatMessageHistory:
        from langchain_community.chat_message_histories import FileChatMessageHistory

        return FileChatMessageHistory(self._path(name))


class LangchainSQLite(_Langchain):
    """`SQLChatMessageHistory` on SQLite."""

    name: ClassVar[str] = "langchain SQLite"
    imports: ClassVar[str] = "from langchain_community.chat_message_histories import SQLChatMessageHistory"

    def _opened(self, name: str) -> BaseChatMessageHistory:
        from langchain_community.chat_message_histories import SQLChatMessageHistory

        path = f"sqlite:///{self.place.removeprefix('file:')}/langchain.sqlite"
        return SQLChatMessageHistory(name, connection=path)


class LangchainRedis(_Langchain):
    """`RedisChatMessageHistory`."""

    name: ClassVar[str] = "langchain"
    imports: ClassVar[str] = "from langchain_community.chat_message_histories import RedisChatMessageHistory"

    def _opened(self, name: str) -> BaseChatMessageHistory:
        from langchain_community.chat_message_histories import RedisChatMessageHistory

        return RedisChatMessageHistory(name, url=self.place)


class LangchainMongo(_Langchain):
    """`MongoDBChatMessageHistory`, which has moved to `langchain-mongodb`."""

    name: ClassVar[str] = "langchain"
    imports: ClassVar[str] = "from langchain_mongodb import MongoDBChatMessageHistory"

    def _opened(self, name: str) -> BaseChatMessageHistory:
        from langchain_mongodb import MongoDBChatMessageHistory

        separator = "&" if "?" in self.place else "?"
        address = f"{self.place}{separator}w=majority&journal=true"
        return MongoDBChatMessageHistory(address, session_id=name)
