"""What Claude is sent of a log: a pure function, from entries to messages and a report."""

from chathistory.view.build import Repair, Report, View, view, view_of

__all__ = ["Repair", "Report", "View", "view", "view_of"]
