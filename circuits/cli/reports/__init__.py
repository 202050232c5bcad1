"""Results as they are printed and drawn; a command imports its own when it has something to show."""
