"""The log of a conversation: its entries and the state they add up to, the same for every store."""
