"""Circuits and paths drawn by layer."""
