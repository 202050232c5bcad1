"""The command `circuits tables`: what it takes and what it says of itself."""
