"""Which words a classifier goes by."""
