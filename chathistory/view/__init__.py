"""What Claude is sent of a log: a pure function, from entries to messages and a report."""

from chathistory.view.build import MessageView, ViewRepair, ViewReport, view, view_of

__all__ = ["MessageView", "ViewRepair", "ViewReport", "view", "view_of"]
