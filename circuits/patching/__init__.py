"""What happens if: interventions, exact. Many patched runs share one base run and ride through the layers together."""

from circuits.patching.ablation import Ablation, ablate
from circuits.patching.attention_trace import Agreement, AttentionTrace
from circuits.patching.attention_tracing import attention
from circuits.patching.causal_tracing import causal_trace, noise_level
from circuits.patching.effects import Effects
from circuits.patching.facts_tracing import trace_facts
from circuits.patching.knockout import Knockout, attention_knockout
from circuits.patching.nodes import patch_nodes
from circuits.patching.path_patching import patch_edges, patch_path
from circuits.patching.removal import LayerRemoval, remove_layers
from circuits.patching.self_repair import SelfRepair, self_repair
from circuits.patching.subgraph import run_circuits
from circuits.patching.terms import Terms, order_of_terms
from circuits.patching.traces import Trace, Traces

__all__ = [
    "Ablation",
    "Agreement",
    "AttentionTrace",
    "Effects",
    "Knockout",
    "LayerRemoval",
    "SelfRepair",
    "Terms",
    "Trace",
    "Traces",
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
