"""Find the cause of an API error in its status, its error code and its text.

The API has error codes for a few causes and only texts for the rest. `tests/engine/reported_api_errors.py` has a table
of the texts, each with its source. An error that is not recognized changes nothing in the conversation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Cause", "describe_cause", "find_cause"]


@dataclass(frozen=True, slots=True)
class Cause:
    """The part of a conversation that an API error is about.

    Attributes:
        about: "messages" (single messages or blocks), "size" (the request as a whole) or "container" (a container of
            the code execution tool).
        why: The cause, in words that quote neither the error nor the conversation.
        paths: Places in the request that the error names, such as "messages.4.content.1"; () if it names none.
        files: Ids of files that the error names; () if it names none.
        types: Types of the content blocks that the error can be about; only set if it names no place.
        status: The HTTP status; None if the error has none.
    """

    about: Literal["messages", "size", "container"]
    why: str
    paths: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    types: frozenset[str] = frozenset()
    status: int | None = None


_REFUSAL_STATUSES = frozenset({400, 404, 413, 422})
_STREAM_STATUS = 200  # the status of an error event within a stream; its type has the cause
_REFUSAL_TYPES = frozenset({"invalid_request_error", "not_found_error", "request_too_large"})
_TOO_LARGE_STATUS = 413
_SIZE_CODES = frozenset({"request_body_too_large_after_decoding"})

_PATH = re.compile(r"(?<![\w.])messages(?:\.\d+|\[\d+\])(?:[.\w]*\.content(?:\.\d+|\[\d+\]))*")
_FILE_ID = re.compile(r"\bfile_[A-Za-z0-9]+")

# The patterns below are matched against text in lower case.
_GONE = r"(?:not found|not be found|expired|does not exist|doesn't exist|no longer|unknown|not available|unavailable)"
_CONTAINER = re.compile(
    rf"(?<![\w.])container\b(?!_upload).{{0,120}}?{_GONE}|(?:no|unknown|expired) container\b|^container: "
)
_FILE = re.compile(rf"\bfile\b.{{0,120}}?{_GONE}|(?:no|unknown|expired) file\b")
_SIZE = re.compile(
    r"prompt is too long|input is too long|input length and `?max_tokens`? exceed|exceeds? (?:the )?context limit"
    r"|exceeds? the (?:maximum )?context window|too much media|too many images|list should have at most \d+ items"
    r"|maximum of \d+ (?:pdf )?(?:pages|images|documents)|request exceeds the maximum|request entity too large"
    r"|request (?:body )?(?:is )?too large"
)
_SIZE_CAUSES = (
    (re.compile(r"media|images?\b"), "too many images or pages"),
    (re.compile(r"\bpages\b"), "too many pages"),
    (re.compile(r"at most"), "too many messages"),
)
_CONTENT_CAUSES = (
    (re.compile(r"cannot be modified|expected `?thinking"), "thinking of the open turn that is not as the API gave it"),
    (
        re.compile(r"invalid `?signature|bound to a different conversation|`thinking`"),
        "thinking that the API does not accept",
    ),
    (re.compile(r"password"), "a PDF that is protected by a password"),
    (re.compile(r"maximum of \d+ pdf pages"), "a PDF that has too many pages"),
    (re.compile(r"\bpdf\b"), "a PDF that cannot be read"),
    (re.compile(r"many-images? requests"), "an image that is too large for a request with many images"),
    (re.compile(r"dimension|exceeds? \d+ ?mb|exceeds? .{0,20}maximum|too large"), "an image that is too large"),
    (re.compile(r"could not process image|image.{0,60}(?:invalid|corrupt|not match|not valid)"), "an unreadable image"),
    (re.compile(r"download|robots|url"), "a URL that the API cannot read"),
    (re.compile(r"encrypted_content|encrypted_index"), "an encrypted result that the API does not accept"),
    (_FILE, "a file that the API no longer has"),
)
_UNREADABLE = re.compile(
    r"could not process|unable to (?:download|process|read|fetch)|not valid|invalid|password|robots\.txt"
)
_BLOCK_TYPES = (
    (re.compile(r"\bpdf\b|\bdocument\b"), frozenset({"document"})),
    (re.compile(r"\bimages?\b"), frozenset({"image"})),
    (re.compile(r"download the file|robots\.txt|\burl\b"), frozenset({"image", "document"})),
)


def find_cause(error: BaseException) -> Cause | None:
    """Return the part of the conversation that an API error is about.

    Args:
        error: An exception of the SDK, or any other exception.

    Returns:
        None if the error is not about the conversation (credit, load, network, ...), or its cause is not recognized.
    """
    status = getattr(error, "status_code", None)
    kind = getattr(error, "type", None)
    if status not in _REFUSAL_STATUSES and not (status == _STREAM_STATUS and kind in _REFUSAL_TYPES):
        return None
    message = _error_text(error)
    text = message.lower()
    listed = getattr(getattr(error, "details", None), "paths", None) or ()
    paths = tuple(path for path in listed if isinstance(path, str) and _PATH.match(path))
    if not paths and (found := _PATH.search(message)):
        paths = (found[0],)
    if not paths and _CONTAINER.search(text):
        return Cause("container", "a container that the API no longer has", status=status)
    too_large = (
        status == _TOO_LARGE_STATUS or kind == "request_too_large" or getattr(error, "error_code", None) in _SIZE_CODES
    )
    if too_large or (not paths and _SIZE.search(text)):
        limit = "the request has too many bytes" if too_large or "request" in text else "the prompt has too many tokens"
        return Cause("size", next((why for word, why in _SIZE_CAUSES if word.search(text)), limit), status=status)
    return _find_in_messages(error, message, paths, status)


def describe_cause(error: BaseException) -> str:
    """Return the cause of an API error, in words that quote neither the error nor the conversation.

    Args:
        error: An exception of the SDK.

    Returns:
        A noun phrase; "content that the API does not accept" if the text of the error matches no known cause.
    """
    text = _error_text(error).lower()
    return next(
        (cause for pattern, cause in _CONTENT_CAUSES if pattern.search(text)), "content that the API does not accept"
    )


def _find_in_messages(error: BaseException, message: str, paths: tuple[str, ...], status: int | None) -> Cause | None:
    text = message.lower()
    files = tuple(dict.fromkeys(_FILE_ID.findall(message)))
    why = describe_cause(error)
    if paths:
        return Cause("messages", why, paths, files, status=status)
    if getattr(error, "error_code", None) == "file_expired" or _FILE.search(text):
        why = "a file that the API no longer has"
        return Cause("messages", why, (), files, frozenset({"file"}), status)
    types = next((types for pattern, types in _BLOCK_TYPES if pattern.search(text)), frozenset())
    return Cause("messages", why, (), (), types, status) if types and _UNREADABLE.search(text) else None


def _error_text(error: BaseException) -> str:
    """Return the API's own message, or all of the error's text: a gateway may put the message anywhere in the body."""
    message = getattr(error, "api_message", None)
    return message if isinstance(message, str) and message else str(error)
