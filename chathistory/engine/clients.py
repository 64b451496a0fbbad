"""Checks of the client and options of an engine, before anything is stored or paid for.

A client is judged by its behaviour: it must have `messages.create`, which must be a coroutine function for
`AsyncChatEngine` and must not be one for `ChatEngine`. Only the SDK's own classes are recognized by name. A client that
cannot be judged, such as a proxy that creates its methods on access, is accepted, and its first answer is checked.
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
    """A client of the Anthropic SDK, or an object that behaves like one: `client.messages` has `create`."""

    @property
    def messages(self) -> Any:
        """The object with the methods `create`, `stream` and `count_tokens`."""
        ...


_OWN_ARGUMENTS = ("model", "system", "tools", "max_tokens")
"""Arguments of `messages.create` that are arguments of the engine itself, which checks them."""


def check_client(client: Any, *, asynchronous: bool) -> None:
    """Check that an engine can work with a client.

    Args:
        client: The object that the caller passed as the client.
        asynchronous: Whether the engine is an `AsyncChatEngine`.

    Raises:
        InvalidInput: It cannot; the message has the module and class of the object, and what to pass instead.
    """
    expected = "anthropic.AsyncAnthropic()" if asynchronous else "anthropic.Anthropic()"
    name = class_name(client)
    if isinstance(client, type):
        _refuse_client(f"must be an object such as {expected}, not {name}")
    create = getattr(getattr(client, "messages", None), "create", None)
    if not callable(create):
        _refuse_client(f"must have messages.create, as {expected} has; {name} does not{_suggest_fix(client)}")
    if _is_sdk_class(client, "") and type(client).__name__.endswith(("WithRawResponse", "WithStreamedResponse")):
        _refuse_client(
            f"must return messages, but {name} returns raw HTTP responses; pass the client itself, such as {expected}"
        )
    if asynchronous and _is_synchronous(client, create):
        _refuse_client(f"must be asynchronous, but {name} is not; pass {expected}, or use ChatEngine")
    if not asynchronous and (_is_sdk_class(client, "Async") or is_coroutine_function(create)):
        _refuse_client(f"must be synchronous, but {name} is not; pass {expected}, or use AsyncChatEngine")


def _suggest_fix(client: Any) -> str:
    if callable(getattr(client, "create", None)):
        return "; pass the client itself, not its `.messages`"
    if hasattr(client, "invoke_model"):
        return "; use anthropic.AnthropicBedrock() for Amazon Bedrock"
    if all(callable(getattr(client, name, None)) for name in ("append", "heads")):
        return "; the client is the first argument of an engine, the store the second"
    return ""


def _is_sdk_class(client: Any, prefix: str) -> bool:
    kinds = type(client).__mro__
    return any(kind.__module__.partition(".")[0] == "anthropic" and kind.__name__.startswith(prefix) for kind in kinds)


def _is_synchronous(client: Any, create: Any) -> bool:
    """Whether `create` is a plain function, with no sign that it returns an awaitable.

    A wrapper of an asynchronous client is often a plain function that returns the coroutine of the wrapped client.
    """
    if is_coroutine_function(create) or _is_sdk_class(client, "Async"):
        return False
    if _is_sdk_class(client, "Anthropic"):
        return True
    functions = [each for each in unwrap_function(create) if inspect.isfunction(each)]
    if not functions or not isinstance(create, _FUNCTIONS):
        return False
    references: list[Any] = []  # attributes of these objects, and members of their classes
    for owner in (client, client.messages, *(getattr(each, "__self__", None) for each in unwrap_function(create))):
        references += [*getattr(owner, "__dict__", {}).values()]
        references += [value for kind in type(owner).__mro__[:-1] for value in vars(kind).values()]
    for function in functions:  # what it refers to: in its closure, and by global names
        module_globals = function.__globals__
        references += [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
        references += [module_globals[name] for name in function.__code__.co_names if name in module_globals]
    return not any(map(_is_annotated_awaitable, functions)) and not any(map(_is_asynchronous, references))


_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def _is_annotated_awaitable(function: Any) -> bool:
    """Whether the return annotation of a function is an awaitable."""
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
    """Return an attribute; None if it does not exist, or reading it raises an error."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property of a caller's class can raise anything
        return None


def beta_of(client: Any) -> Any:
    """Return `client.beta.messages`, or `client.messages` if the client has no beta namespace.

    Args:
        client: A client that `check_client` accepts.

    Returns:
        An object with `create`.
    """
    return getattr(getattr(client, "beta", None), "messages", None) or client.messages


def check_options(options: Any) -> dict[str, Any]:
    """Return the further arguments of `messages.create` as a copy.

    Args:
        options: What the caller passed as `options`; None: {}.

    Returns:
        A dict; the dicts and lists in it are copies, too.

    Raises:
        InvalidInput: It is not a mapping, or it has an argument that the engine sets itself.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidInput(f"options: must be a mapping of arguments of messages.create, not {class_name(options)}")
    if "stream" in options:
        raise InvalidInput(
            "options.stream: must not be set; `engine.stream(...)` streams a reply, `engine.send(...)` waits for it"
        )
    if "messages" in options:
        raise InvalidInput("options.messages: must not be set; the engine sends the messages of the conversation")
    for name in _OWN_ARGUMENTS:
        if name in options:
            raise InvalidInput(f"options.{name}: must not be set; pass `{name}` as an argument of the engine")
    return {name: copy_json(value) for name, value in options.items()}


def _refuse_client(problem: str) -> NoReturn:
    raise InvalidInput(f"client: {problem}")
