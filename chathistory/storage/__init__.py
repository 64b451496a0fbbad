"""The storage contract: what the core asks of a backend, and how a URL becomes a store."""
