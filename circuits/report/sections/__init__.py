"""From results to sections of a page, a file a kind of result."""
