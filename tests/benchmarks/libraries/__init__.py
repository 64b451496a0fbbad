"""Who is measured, by backend. Add a class here to put another library beside ours."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from .library_base import Subject, Unable

__all__ = ["BACKENDS", "Subject", "Unable", "named", "subjects_of"]

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


def subjects_of(backend: str) -> list[str]:
    """Return the subjects of a backend, raw first, then ours; peers only as far as they are installed."""
    return [name for name in BACKENDS[backend] if all(map(find_spec, _NEEDS.get(name.partition(":")[0], ())))]


def named(name: str) -> type[Subject]:
    """Return the class of a subject, importing what it needs."""
    module, _, kind = name.partition(":")
    found: type[Subject] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
