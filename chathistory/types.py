"""The smaller types in the signatures and reports of the library, for annotations of one's own.

    from chathistory.types import File, Outcome

What a program makes or calls is in `chathistory` itself.
"""

from __future__ import annotations

from chathistory.config.layers import Source
from chathistory.engine.refusals import Place, Sort
from chathistory.log.process import Process
from chathistory.log.state import ClosedTurn, OpenTurn, Summary
from chathistory.messages.content import Message
from chathistory.operations.check import State
from chathistory.operations.prune import Reason
from chathistory.transfer.copy import Outcome, Progress
from chathistory.transfer.files import File
from chathistory.trimming.policies import Writer

__all__ = [
    "ClosedTurn",
    "File",
    "Message",
    "OpenTurn",
    "Outcome",
    "Place",
    "Process",
    "Progress",
    "Reason",
    "Sort",
    "Source",
    "State",
    "Summary",
    "Writer",
]
