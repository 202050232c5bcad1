"""The command `circuits neuron`: what it takes and what it says of itself."""
