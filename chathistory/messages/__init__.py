"""What content blocks the Messages API takes, and what to do about those that it does not."""
