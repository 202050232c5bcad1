"""Documents on disk: strict, whole, one writer."""
