"""Which neurons know a property: rankings, each by another idea, to be checked by taking the neurons out."""
