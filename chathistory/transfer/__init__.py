"""Conversations copied between stores, and written to and read from files."""
