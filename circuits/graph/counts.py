"""How many edges a graph has, in closed form, and its shape in words."""

from typing import Any

from circuits.graph.nodes import NodeKind


def edge_counts(graph: Any) -> dict[tuple[NodeKind, NodeKind], int]:
    """The edges of a `Graph` by (kind of writer, kind of reader), without those that are none."""
    layers, heads, width = graph.n_layers, graph.n_heads, graph.mlp_writers
    # What reads at its own role does so once a role, keys and values once for each pair of roles.
    roles, links = (1, 1) if graph.roles is None else (len(graph.roles), graph.roles.links)
    inputs = heads * roles + 2 * graph.n_key_value_heads * links
    mlp: NodeKind = "neuron" if graph.neurons else "mlp"
    pairs = layers * (layers - 1) // 2
    counts: dict[tuple[NodeKind, NodeKind], int] = {
        ("input", "head"): layers * inputs,
        ("input", mlp): layers * width * roles,
        ("input", "logits"): 1,
        ("head", "head"): pairs * heads * inputs,
        ("head", mlp): (pairs + (0 if graph.parallel else layers)) * heads * width * roles,
        ("head", "logits"): layers * heads,
        (mlp, "head"): pairs * width * inputs,
        (mlp, mlp): pairs * width * width * roles,
        (mlp, "logits"): layers * width,
    }
    return {kinds: count for kinds, count in counts.items() if count}


def describe(graph: Any) -> str:
    """The shape and the counts of a `Graph` in a few lines."""
    mlps = f"{graph.d_mlp:,} neurons a layer" if graph.neurons else "whole MLPs"
    shape = f"{graph.n_layers} layers of {graph.n_heads} heads"
    shape += f" ({graph.n_key_value_heads} key-value heads)" if graph.grouped else ""
    shape += f", {mlps if graph.d_mlp else 'no MLPs'}" + (", parallel blocks" if graph.parallel else "")
    shape += "" if graph.roles is None else f", roles {', '.join(graph.roles.names)}"
    lines = [shape, f"{graph.node_count:,} nodes, {graph.edge_count:,} edges"]
    lines += [f"  {writer} -> {reader}: {count:,}" for (writer, reader), count in graph.edge_counts().items()]
    return "\n".join(lines)
