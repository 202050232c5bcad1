"""Runs a transformer language model as a graph of heads and neurons, and finds the circuits in it.

    model = circuits.load_model("mini")
    circuit = circuits.find_induction_circuit(model)
    circuit.save("induction.json")

Names are imported when they are first used, so that `import circuits` is quick; `__init__.pyi` lists them.
"""

import importlib.metadata
from typing import Any

import lazy_loader

from circuits.files.pictures import hung_in
from circuits.moved import know_old_paths

know_old_paths()
hung_in("circuits.plots")  # imported when the first picture is asked for, by no room above it
_import, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    return importlib.metadata.version("transformer-circuits") if name == "__version__" else _import(name)


def __dir__() -> list[str]:
    return sorted(__all__)
