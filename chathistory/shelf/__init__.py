"""What is done with whole conversations: listed, forked, moved between stores and files, kept and forgotten."""
