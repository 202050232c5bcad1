"""Prompts, sentences, text and published circuits from files."""
