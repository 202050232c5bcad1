"""The whole package runs under shape and type checks in the tests."""

from jaxtyping import install_import_hook

install_import_hook("circuits", "beartype.beartype")
