"""Which edges return when a search is repeated: on other prompts, with other seeds, in other models."""
