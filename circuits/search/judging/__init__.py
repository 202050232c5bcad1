"""Judging circuits: verdicts, curves, random circuits, comparisons."""
