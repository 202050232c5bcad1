"""The command `circuits lens`: what it takes and what it says of itself."""
