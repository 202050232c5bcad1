"""The command `circuits attention`: what it takes and what it says of itself."""
