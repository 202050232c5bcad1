"""Runs a transformer language model as a graph of heads and neurons, and finds the circuits in it.

    model = circuits.load_model("mini")
    circuit = circuits.find_induction_circuit(model)
    circuit.save("induction.json")

Names are imported when they are first used, so that `import circuits` is quick.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits import errors, graph, heads, models, patching, plots, search, tasks
    from circuits.errors import CircuitsError
    from circuits.graph import Circuit, Edge, Graph, Node
    from circuits.heads import score_heads
    from circuits.models import Edit, Model, Run, bundled_models, load_model
    from circuits.patching import (
        ablate,
        attention_knockout,
        causal_trace,
        patch_edges,
        patch_nodes,
        patch_path,
        self_repair,
        trace_facts,
    )
    from circuits.search import find_factual_recall_circuit, find_induction_circuit
    from circuits.tasks import PromptPairs, metrics

    __version__: str

_ROOMS = ("errors", "graph", "heads", "models", "patching", "plots", "search", "tasks")

_ORIGINS = {
    "Circuit": "circuits.graph",
    "CircuitsError": "circuits.errors",
    "Edge": "circuits.graph",
    "Edit": "circuits.models",
    "Graph": "circuits.graph",
    "Model": "circuits.models",
    "Node": "circuits.graph",
    "PromptPairs": "circuits.tasks",
    "Run": "circuits.models",
    "ablate": "circuits.patching",
    "attention_knockout": "circuits.patching",
    "bundled_models": "circuits.models",
    "causal_trace": "circuits.patching",
    "find_factual_recall_circuit": "circuits.search",
    "find_induction_circuit": "circuits.search",
    "load_model": "circuits.models",
    "patch_edges": "circuits.patching",
    "patch_nodes": "circuits.patching",
    "patch_path": "circuits.patching",
    "score_heads": "circuits.heads",
    "self_repair": "circuits.patching",
    "trace_facts": "circuits.patching",
}
"""Public name → module that has it."""

__all__ = [
    "Circuit",
    "CircuitsError",
    "Edge",
    "Edit",
    "Graph",
    "Model",
    "Node",
    "PromptPairs",
    "Run",
    "__version__",
    "ablate",
    "attention_knockout",
    "bundled_models",
    "causal_trace",
    "errors",
    "find_factual_recall_circuit",
    "find_induction_circuit",
    "graph",
    "heads",
    "load_model",
    "metrics",
    "models",
    "patch_edges",
    "patch_nodes",
    "patch_path",
    "patching",
    "plots",
    "score_heads",
    "search",
    "self_repair",
    "tasks",
    "trace_facts",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("transformer-circuits")
    if name == "metrics":
        return importlib.import_module("circuits.tasks.metrics")
    if name in _ROOMS:
        return importlib.import_module(f"circuits.{name}")
    if name in _ORIGINS:
        return getattr(importlib.import_module(_ORIGINS[name]), name)
    raise AttributeError(f"module 'circuits' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
