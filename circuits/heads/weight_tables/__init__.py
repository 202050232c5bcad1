"""Tables of tokens against tokens, read from the weights."""

from circuits.heads.weight_tables.table import WeightTable, bigram_table, ov_table, qk_table

__all__ = ["WeightTable", "bigram_table", "ov_table", "qk_table"]
