"""The command `circuits`: parsing and printing only."""

import circuits.cli.patching_app  # noqa: F401 - registers its commands
from circuits.cli.app import app, main

__all__ = ["app", "main"]
