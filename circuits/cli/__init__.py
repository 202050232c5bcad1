"""The command `circuits`: parsing and printing only."""

# ruff: noqa: I001 - each registers its commands, in the order in which `circuits --help` lists them
import circuits.cli.patching_app
import circuits.cli.search_app
import circuits.cli.lens_app
import circuits.cli.logits_app
import circuits.cli.neuron_app
import circuits.cli.tables_app
import circuits.cli.attention_app
import circuits.cli.probe_app  # noqa: F401
from circuits.cli.app import app, main

__all__ = ["app", "main"]
