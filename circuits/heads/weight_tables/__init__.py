"""Tables of tokens against tokens, read from the weights."""
