"""Checks of the client that an engine is made with, before anything is stored or paid for.

A client is judged by what it does: it has `messages.create`, which is a coroutine function for the asynchronous engine
and none for the other. Only the SDK's own classes are known by name. What cannot be told (a proxy whose methods are
made when they are asked for) is accepted, and looked at again when it has answered.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from chathistory.checks import class_name, is_coroutine_function, unwrap_function
from chathistory.engine.request import copy_json
from chathistory.errors import InvalidInput

__all__ = ["MessagesClient", "beta_of", "check_client", "check_options"]


class MessagesClient(Protocol):
    """A client of the Anthropic SDK, or an object that stands for one: its `messages` have `create`."""

    @property
    def messages(self) -> Any:
        """What has `create`, `stream` and `count_tokens`."""
        ...


_OWN_ARGUMENTS = ("model", "system", "tools", "max_tokens")
"""Arguments of `messages.create` that an engine takes by themselves, for it stores what it sends of them."""


def check_client(client: Any, *, asynchronous: bool) -> None:
    """Raise `InvalidInput`, naming module and class, if an engine cannot work with this client."""
    wanted = "anthropic.AsyncAnthropic()" if asynchronous else "anthropic.Anthropic()"
    name = class_name(client)
    if isinstance(client, type):
        _refuse_client(f"must be an object such as {wanted}, not {name}")
    create = getattr(getattr(client, "messages", None), "create", None)
    if not callable(create):
        _refuse_client(f"must have messages.create, as {wanted} has; {name} does not{_suggest_fix(client)}")
    if _is_sdk_class(client, "") and type(client).__name__.endswith(("WithRawResponse", "WithStreamedResponse")):
        _refuse_client(f"{name} answers with raw HTTP responses; hand in the client itself, such as {wanted}")
    if asynchronous and _is_synchronous(client, create):
        _refuse_client(f"{name} is a synchronous client; AsyncChatEngine needs {wanted}, or use ChatEngine")
    if not asynchronous and (_is_sdk_class(client, "Async") or is_coroutine_function(create)):
        _refuse_client(f"{name} is an asynchronous client; ChatEngine needs {wanted}, or use AsyncChatEngine")


def _suggest_fix(client: Any) -> str:
    if callable(getattr(client, "create", None)):
        return "; hand in the client itself, not its `.messages`"
    if hasattr(client, "invoke_model"):
        return "; use anthropic.AnthropicBedrock() for Amazon Bedrock"
    if all(callable(getattr(client, name, None)) for name in ("append", "heads")):
        return "; the client is the first argument of an engine, the store the second"
    return ""


def _is_sdk_class(client: Any, prefix: str) -> bool:
    kinds = type(client).__mro__
    return any(kind.__module__.partition(".")[0] == "anthropic" and kind.__name__.startswith(prefix) for kind in kinds)


def _is_synchronous(client: Any, create: Any) -> bool:
    """Whether `create` is a plain function, and nothing speaks for it that it returns something to await.

    A wrapper around an asynchronous client is often a plain function that passes on the coroutine.
    """
    if is_coroutine_function(create) or _is_sdk_class(client, "Async"):
        return False
    if _is_sdk_class(client, "Anthropic"):
        return True
    functions = [each for each in unwrap_function(create) if inspect.isfunction(each)]
    if not functions or not isinstance(create, _FUNCTIONS):
        return False
    reached: list[Any] = []  # what these objects hold, and the functions of their classes
    for owner in (client, client.messages, *(getattr(each, "__self__", None) for each in unwrap_function(create))):
        reached += [*getattr(owner, "__dict__", {}).values()]
        reached += [value for kind in type(owner).__mro__[:-1] for value in vars(kind).values()]
    for function in functions:  # what it refers to: in its closure, and by the global names that it uses
        around = function.__globals__
        reached += [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
        reached += [around[name] for name in function.__code__.co_names if name in around]
    return not any(map(_is_annotated_awaitable, functions)) and not any(map(_is_asynchronous, reached))


_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def _is_annotated_awaitable(function: Any) -> bool:
    """Whether a function says by its annotation that it returns something to await."""
    returned = str(function.__annotations__.get("return", ""))
    return any(word in returned for word in ("Awaitable", "Coroutine", "Future", "Task"))


_EMPTY = types.CellType()


def _is_asynchronous(value: Any) -> bool:
    """Whether a value is a coroutine function, or an object whose `create` is one."""
    if inspect.ismodule(value) or isinstance(value, type):
        return False
    places = (value, _get_attribute(value, "create"), _get_attribute(_get_attribute(value, "messages"), "create"))
    return any(is_coroutine_function(each) for each in places if callable(each))


def _get_attribute(value: Any, name: str) -> Any:
    """Return an attribute; None if there is none, or finding it fails."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - whatever a property of the caller's raises
        return None


def beta_of(client: Any) -> Any:
    """Return the messages of the beta namespace; those of the client itself if it has no such namespace."""
    return getattr(getattr(client, "beta", None), "messages", None) or client.messages


def check_options(options: Any) -> dict[str, Any]:
    """Return the further arguments of `messages.create` as a dict. Raises `InvalidInput` for what must not be there."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidInput(f"options: must be a mapping of arguments of messages.create, not {class_name(options)}")
    if "stream" in options:
        raise InvalidInput(
            "options.stream: leave it out; `engine.stream(...)` streams a reply, `engine.send(...)` waits for it"
        )
    if "messages" in options:
        raise InvalidInput("options.messages: leave it out; the engine sends the messages of the conversation")
    for name in _OWN_ARGUMENTS:
        if name in options:
            raise InvalidInput(
                f"options.{name}: give it as the engine's own argument `{name}`, so that it is stored as it is sent"
            )
    return {name: copy_json(value) for name, value in options.items()}


def _refuse_client(what: str) -> NoReturn:
    raise InvalidInput(f"client: {what}")
