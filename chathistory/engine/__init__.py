"""The chat engine: from what a user says to Claude's reply, with every step of it saved."""
