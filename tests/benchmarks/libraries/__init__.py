"""The libraries that are measured, by backend. To compare another one, add a class here."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from .library_base import MeasuredLibrary, NotSupported

__all__ = ["BACKENDS", "MeasuredLibrary", "NotSupported", "libraries_for", "load_library"]

_OURS = ("chathistory_layers:Store", "chathistory_layers:Chathistory")
BACKENDS: dict[str, tuple[str, ...]] = {
    "memory": ("raw_memory:RawMemory", *_OURS),
    "file": (
        "raw_file:RawFile",
        *_OURS,
        "langchain:LangchainFile",
        "langchain:LangchainSQLite",
        "openai_agents:AgentsSQLite",
    ),
    "redis": ("raw_redis:RawRedis", *_OURS, "langchain:LangchainRedis", "openai_agents:AgentsRedis"),
    "mongodb": ("raw_mongodb:RawMongo", *_OURS, "langchain:LangchainMongo", "openai_agents:AgentsMongo"),
    "s3": ("raw_s3:RawS3", *_OURS),
}
_NEEDS = {"langchain": ("langchain_community", "langchain_mongodb"), "openai_agents": ("agents",)}


def libraries_for(backend: str) -> list[str]:
    """Return the libraries of a backend: raw, then `chathistory`, then those of the others that are installed."""
    return [name for name in BACKENDS[backend] if all(map(find_spec, _NEEDS.get(name.partition(":")[0], ())))]


def load_library(name: str) -> type[MeasuredLibrary]:
    """Return the class for a name such as "raw_redis:RawRedis"; imports its module."""
    module, _, kind = name.partition(":")
    found: type[MeasuredLibrary] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
