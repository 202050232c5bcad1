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
    from circuits import attribution, errors, graph, heads, models, patching, plots, search, tasks
    from circuits.attribution import EdgeScores, attribute_edges, attribute_nodes
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
        run_circuits,
        self_repair,
        trace_facts,
    )
    from circuits.search import (
        acdc,
        acdc_thresholds,
        compare,
        discover,
        evaluate,
        faithfulness_curve,
        find_factual_recall_circuit,
        find_induction_circuit,
        prune_edges,
        roc,
        screen_then_verify,
        shrink,
    )
    from circuits.tasks import PromptPairs, metrics

    __version__: str

_ROOMS = ("attribution", "errors", "graph", "heads", "models", "patching", "plots", "search", "tasks")

_ORIGINS = {
    "Circuit": "circuits.graph",
    "CircuitsError": "circuits.errors",
    "Edge": "circuits.graph",
    "EdgeScores": "circuits.attribution",
    "Edit": "circuits.models",
    "Graph": "circuits.graph",
    "Model": "circuits.models",
    "Node": "circuits.graph",
    "PromptPairs": "circuits.tasks",
    "Run": "circuits.models",
    "ablate": "circuits.patching",
    "acdc": "circuits.search",
    "acdc_thresholds": "circuits.search",
    "attention_knockout": "circuits.patching",
    "attribute_edges": "circuits.attribution",
    "attribute_nodes": "circuits.attribution",
    "bundled_models": "circuits.models",
    "causal_trace": "circuits.patching",
    "compare": "circuits.search",
    "discover": "circuits.search",
    "evaluate": "circuits.search",
    "faithfulness_curve": "circuits.search",
    "find_factual_recall_circuit": "circuits.search",
    "find_induction_circuit": "circuits.search",
    "load_model": "circuits.models",
    "patch_edges": "circuits.patching",
    "patch_nodes": "circuits.patching",
    "patch_path": "circuits.patching",
    "prune_edges": "circuits.search",
    "roc": "circuits.search",
    "run_circuits": "circuits.patching",
    "score_heads": "circuits.heads",
    "screen_then_verify": "circuits.search",
    "self_repair": "circuits.patching",
    "shrink": "circuits.search",
    "trace_facts": "circuits.patching",
}
"""Public name → module that has it."""

__all__ = [
    "Circuit",
    "CircuitsError",
    "Edge",
    "EdgeScores",
    "Edit",
    "Graph",
    "Model",
    "Node",
    "PromptPairs",
    "Run",
    "__version__",
    "ablate",
    "acdc",
    "acdc_thresholds",
    "attention_knockout",
    "attribute_edges",
    "attribute_nodes",
    "attribution",
    "bundled_models",
    "causal_trace",
    "compare",
    "discover",
    "errors",
    "evaluate",
    "faithfulness_curve",
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
    "prune_edges",
    "roc",
    "run_circuits",
    "score_heads",
    "screen_then_verify",
    "search",
    "self_repair",
    "shrink",
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
