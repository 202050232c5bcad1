"""Runs a transformer language model as a graph of heads and neurons, and finds the circuits in it.

    model = circuits.load_model("mini")
    circuit = circuits.find_induction_circuit(model)
    circuit.save("induction.json")

Names are imported when they are first used, so that `import circuits` is quick.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from circuits.moved import know_old_paths

if TYPE_CHECKING:
    from circuits import attribution, errors, graph, heads, lenses, models, patching, plots, search, tasks
    from circuits.attribution import EdgeScores, attribute_edges, attribute_nodes
    from circuits.errors import CircuitsError
    from circuits.graph import Circuit, Edge, Graph, Node
    from circuits.heads import (
        Tables,
        TrainingCurves,
        bigram_table,
        compress_heads,
        find_phase_change,
        score_checkpoints,
        score_heads,
        skip_trigrams,
        tables,
    )
    from circuits.lenses import (
        DirectLogits,
        Lens,
        NeuronReport,
        Triggers,
        TunedLens,
        clamp,
        compare_lenses,
        find_triggers,
        key_value_agreement,
        logit_lens,
        logits,
        neuron,
        read_values,
        sub_updates,
        train_tuned_lens,
    )
    from circuits.models import Edit, Model, Run, bundled_models, load_model
    from circuits.patching import (
        ablate,
        attention,
        attention_knockout,
        causal_trace,
        order_of_terms,
        patch_edges,
        patch_nodes,
        patch_path,
        remove_layers,
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

_ROOMS = ("attribution", "errors", "graph", "heads", "lenses", "models", "patching", "plots", "search", "tasks")

_ORIGINS = {
    "Circuit": "circuits.graph",
    "CircuitsError": "circuits.errors",
    "DirectLogits": "circuits.lenses",
    "Edge": "circuits.graph",
    "EdgeScores": "circuits.attribution",
    "Edit": "circuits.models",
    "Graph": "circuits.graph",
    "Lens": "circuits.lenses",
    "Model": "circuits.models",
    "NeuronReport": "circuits.lenses",
    "Node": "circuits.graph",
    "PromptPairs": "circuits.tasks",
    "Run": "circuits.models",
    "Tables": "circuits.heads",
    "TrainingCurves": "circuits.heads",
    "Triggers": "circuits.lenses",
    "TunedLens": "circuits.lenses",
    "ablate": "circuits.patching",
    "acdc": "circuits.search",
    "acdc_thresholds": "circuits.search",
    "attention": "circuits.patching",
    "attention_knockout": "circuits.patching",
    "attribute_edges": "circuits.attribution",
    "attribute_nodes": "circuits.attribution",
    "bigram_table": "circuits.heads",
    "bundled_models": "circuits.models",
    "causal_trace": "circuits.patching",
    "clamp": "circuits.lenses",
    "compare": "circuits.search",
    "compare_lenses": "circuits.lenses",
    "compress_heads": "circuits.heads",
    "discover": "circuits.search",
    "evaluate": "circuits.search",
    "faithfulness_curve": "circuits.search",
    "find_factual_recall_circuit": "circuits.search",
    "find_induction_circuit": "circuits.search",
    "find_phase_change": "circuits.heads",
    "find_triggers": "circuits.lenses",
    "key_value_agreement": "circuits.lenses",
    "load_model": "circuits.models",
    "logit_lens": "circuits.lenses",
    "logits": "circuits.lenses",
    "neuron": "circuits.lenses",
    "order_of_terms": "circuits.patching",
    "patch_edges": "circuits.patching",
    "patch_nodes": "circuits.patching",
    "patch_path": "circuits.patching",
    "prune_edges": "circuits.search",
    "read_values": "circuits.lenses",
    "remove_layers": "circuits.patching",
    "roc": "circuits.search",
    "run_circuits": "circuits.patching",
    "score_checkpoints": "circuits.heads",
    "score_heads": "circuits.heads",
    "screen_then_verify": "circuits.search",
    "self_repair": "circuits.patching",
    "shrink": "circuits.search",
    "skip_trigrams": "circuits.heads",
    "sub_updates": "circuits.lenses",
    "tables": "circuits.heads",
    "trace_facts": "circuits.patching",
    "train_tuned_lens": "circuits.lenses",
}
"""Public name → module that has it."""

__all__ = [
    "Circuit",
    "CircuitsError",
    "DirectLogits",
    "Edge",
    "EdgeScores",
    "Edit",
    "Graph",
    "Lens",
    "Model",
    "NeuronReport",
    "Node",
    "PromptPairs",
    "Run",
    "Tables",
    "TrainingCurves",
    "Triggers",
    "TunedLens",
    "__version__",
    "ablate",
    "acdc",
    "acdc_thresholds",
    "attention",
    "attention_knockout",
    "attribute_edges",
    "attribute_nodes",
    "attribution",
    "bigram_table",
    "bundled_models",
    "causal_trace",
    "clamp",
    "compare",
    "compare_lenses",
    "compress_heads",
    "discover",
    "errors",
    "evaluate",
    "faithfulness_curve",
    "find_factual_recall_circuit",
    "find_induction_circuit",
    "find_phase_change",
    "find_triggers",
    "graph",
    "heads",
    "key_value_agreement",
    "lenses",
    "load_model",
    "logit_lens",
    "logits",
    "metrics",
    "models",
    "neuron",
    "order_of_terms",
    "patch_edges",
    "patch_nodes",
    "patch_path",
    "patching",
    "plots",
    "prune_edges",
    "read_values",
    "remove_layers",
    "roc",
    "run_circuits",
    "score_checkpoints",
    "score_heads",
    "screen_then_verify",
    "search",
    "self_repair",
    "shrink",
    "skip_trigrams",
    "sub_updates",
    "tables",
    "tasks",
    "trace_facts",
    "train_tuned_lens",
]


know_old_paths()


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
