"""The log of a conversation: its entries and their fold, written and read for all stores by one set of rules."""
