"""Operations on stored conversations: annotate, rewind, forget, leave out, repair, list, check and remove."""
