"""The command `circuits logits`: what it takes and what it says of itself."""
