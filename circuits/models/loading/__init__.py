"""From a name or a folder to weights: sources, families as data, and the check against the original."""
