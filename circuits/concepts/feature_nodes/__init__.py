"""Features of dictionaries as nodes: what they do to an answer and to each other, and circuits of them."""
