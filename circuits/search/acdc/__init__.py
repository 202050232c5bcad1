"""ACDC: edges are cut one after the other, from the logits backwards."""
