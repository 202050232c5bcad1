"""What nodes, layers and orders of terms are worth."""
