"""The chat engine: send a user's message to Claude, and save every step of the turn."""
