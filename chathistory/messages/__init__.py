"""Messages and content blocks: what the Messages API takes, and how other values are adjusted or refused."""
