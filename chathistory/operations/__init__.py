"""What is done with stored conversations: annotate, rewind, forget, repair, list, prune and check."""
