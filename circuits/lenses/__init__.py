"""Reading activations and weights out as tokens."""
