"""Trees of words, read off distances and lengths in a projection."""
