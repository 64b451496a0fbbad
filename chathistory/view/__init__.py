"""What Claude is sent of a log: a pure function, from entries to messages and a report."""

from chathistory.view.build import MessageView, ViewRepair, ViewReport, build_active_view, build_view

__all__ = ["MessageView", "ViewRepair", "ViewReport", "build_active_view", "build_view"]
