"""The command `circuits`: parsing and printing only."""

import circuits.cli.patching_app
import circuits.cli.search_app  # noqa: F401 - both register their commands
from circuits.cli.app import app, main

__all__ = ["app", "main"]
