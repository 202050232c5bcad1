"""What happens if: interventions, exact. Many patched runs share one base run and ride through the layers together."""

import warnings
from typing import Any

from circuits.patching.ablation.ablation import Ablation, ablate
from circuits.patching.ablation.layers import LayerRemoval, remove_layers
from circuits.patching.ablation.self_repair import SelfRepair, self_repair
from circuits.patching.ablation.terms import Terms, order_of_terms
from circuits.patching.effects import Effects
from circuits.patching.nodes import patch_nodes
from circuits.patching.paths import patch_edges, patch_path
from circuits.patching.subgraphs.subgraph import run_circuits
from circuits.patching.tracing.attention import attention
from circuits.patching.tracing.attention_trace import AttentionTrace, TracingAgreement
from circuits.patching.tracing.causal import causal_trace, noise_level
from circuits.patching.tracing.facts import trace_facts
from circuits.patching.tracing.knockout import Knockout, attention_knockout
from circuits.patching.tracing.results import Trace, Traces

__all__ = [
    "Ablation",
    "AttentionTrace",
    "Effects",
    "Knockout",
    "LayerRemoval",
    "SelfRepair",
    "Terms",
    "Trace",
    "Traces",
    "TracingAgreement",
    "ablate",
    "attention",
    "attention_knockout",
    "causal_trace",
    "noise_level",
    "order_of_terms",
    "patch_edges",
    "patch_nodes",
    "patch_path",
    "remove_layers",
    "run_circuits",
    "self_repair",
    "trace_facts",
]


def __getattr__(name: str) -> Any:
    if name != "Agreement":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("circuits.patching.Agreement is called TracingAgreement now", DeprecationWarning, stacklevel=2)
    return TracingAgreement
