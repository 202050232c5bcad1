"""Features that are not neurons: how many a layer can pack into fewer dimensions, and dictionaries of them."""
