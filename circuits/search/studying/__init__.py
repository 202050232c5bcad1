"""Studying a model: which behaviours it has, the circuit of each, and what the circuits share."""
