"""The command `circuits`: parsing and printing only."""

import importlib
import pkgutil

from circuits.cli import commands
from circuits.cli.app import app, main

for _module in pkgutil.iter_modules(commands.__path__):  # each registers its commands
    importlib.import_module(f"{commands.__name__}.{_module.name}")

__all__ = ["app", "main"]
