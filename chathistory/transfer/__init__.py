"""Copies conversations between stores, forks them, and exports them to and imports them from files."""
