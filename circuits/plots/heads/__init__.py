"""Pictures of heads: scores, patterns, tables, training."""
