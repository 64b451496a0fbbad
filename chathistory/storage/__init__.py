"""The storage contract, which every backend implements, and how a URL is opened as a store."""
