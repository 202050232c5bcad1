"""The command `circuits probe`: what it takes and what it says of itself."""
