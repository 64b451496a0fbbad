"""The messages that Claude is sent: a pure function from the entries of a log to messages and a report."""

from chathistory.view.build import MessageView, ViewRepair, ViewReport, build_active_view, build_view

__all__ = ["MessageView", "ViewRepair", "ViewReport", "build_active_view", "build_view"]
