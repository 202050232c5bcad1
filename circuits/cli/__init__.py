"""The command `circuits`: parsing and printing only."""

from circuits.cli.app import app, main

__all__ = ["app", "main"]
