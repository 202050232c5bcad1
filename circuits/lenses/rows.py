"""The rows of a lens: residual streams and sets of nodes, by name, and the vectors that stand there in a run."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError
from circuits.graph import Node
from circuits.graph.named import node_of
from circuits.lenses.lens import RowKind
from circuits.models import Model, Run, node_output
from circuits.models.choosing import layer_part
from circuits.models.folding import through_norm


@dataclasses.dataclass(frozen=True)
class LensRow:
    """One row: the residual stream before a layer or in its middle, or a set of nodes."""

    name: str
    kind: RowKind
    layer: int = 0
    nodes: tuple[Node, ...] = ()


def parse_rows(
    model: Model,
    sites: str | Sequence[str] | None,
    nodes: Sequence[str | Sequence[str]] | None,
    *,
    tuned: bool = False,
) -> list[LensRow]:
    """Rows by name, residual streams in the order of computation, then the nodes as they were given, each once. Raises
    GraphError for names that the model lacks, and where nothing is left to read."""
    given = _default(model, tuned) if sites is None else [sites] if isinstance(sites, str) else list(sites)
    streams = [row for name in given for row in _sites(model, name)]
    if tuned and any(row.kind == "middle" for row in streams):
        raise GraphError("a tuned lens has a translator for each layer's input: leave out the mid rows, or the tuned lens")
    streams.sort(key=lambda row: (row.layer, row.kind == "middle"))
    groups = [_group(model, name) for name in ([nodes] if isinstance(nodes, str) else nodes or [])]
    rows = list(dict.fromkeys([*streams, *groups]))
    if not rows:
        raise GraphError("there is nothing to read: both sites and nodes are empty")
    return rows


def _default(model: Model, tuned: bool) -> list[str]:
    return ["residual"] if tuned or not model.d_mlp else ["residual", "middle"]


def _sites(model: Model, name: str) -> list[LensRow]:
    if name == "residual":
        return [LensRow(f"resid{layer}", "residual", layer) for layer in range(model.n_layers + 1)]
    if name == "middle":
        return [LensRow(f"mid{layer}", "middle", layer) for layer in range(model.n_layers)]
    part = layer_part(model, name)
    if part is None or part[0] not in ("residual", "middle"):
        raise GraphError(f"{name!r} is no residual stream: expected residual, middle, or a name such as resid0 or mid0")
    return [LensRow(name, part[0], part[1])]


def _group(model: Model, given: str | Sequence[str]) -> LensRow:
    names = given.split("+") if isinstance(given, str) else [part for name in given for part in name.split("+")]
    found = [Node.parse(name.strip()) for name in names]
    if not found:
        raise GraphError("a set of nodes is empty")
    for node in found:
        node_of(model.graph(), node)
        if node.kind == "logits":
            raise GraphError("logits write nothing to the residual stream: name what feeds them")
        if found.count(node) > 1:
            raise GraphError(f"{node} is in a set of nodes twice")
        if node.kind == "neuron" and Node("mlp", node.layer) in found:
            raise GraphError(f"{node} is a part of m{node.layer}, which is in the same set")
    return LensRow("+".join(map(str, found)), "nodes", nodes=tuple(found))


def residual_at(run: Run, row: LensRow) -> Float[Tensor, "prompt position d_model"]:
    """The residual stream of a row."""
    return run.residuals[row.layer] if row.kind == "residual" else run.middles[row.layer]


def group_vectors(model: Model, run: Run, row: LensRow) -> Float[Tensor, "prompt position d_model"]:
    """What a set of nodes wrote, summed, as the final norm passes it on at the run's own scale: centred where it centres,
    divided by the run's scale, times its gain; its bias is left out."""
    first, *others = row.nodes
    x = node_output(run, first)
    for node in others:
        x = x + node_output(run, node)
    return through_norm(x, model.weights.final_norm, run.final_scale)
