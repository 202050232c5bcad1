"""Attention maps told apart by their pattern, and what heads of each pattern are worth."""
