"""An attribution graph: what wrote what in one prompt, from the embeddings through features and errors to the logits."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.files.words import counted

if TYPE_CHECKING:
    import pandas

GraphNodeKind = Literal["embedding", "feature", "error", "mlp", "logit"]


@dataclasses.dataclass(frozen=True)
class GraphNode:
    """One node of one token."""

    kind: GraphNodeKind
    place: str
    """Where it writes (`m2`, `resid3`); "embedding", "logits"."""
    layer: int
    """-1: the embeddings; for logits one more than the last layer."""
    position: int
    """Which token of the prompt, counted from 0."""
    index: int
    """The feature's number, or the token's id; -1 for errors and MLPs."""
    value: float
    """A feature's activation, a logit's probability; 0 for others."""
    influence: float
    """How much of the logits shown goes through it, by shares of what each node reads."""
    label: str = ""

    @property
    def name(self) -> str:
        """Such as `m2.f13@4`."""
        own = {"embedding": "embedding", "error": f"{self.place}.error", "mlp": self.place, "logit": f"logit {self.index}"}
        return f"{own.get(self.kind, f'{self.place}.f{self.index}')}@{self.position}"


@dataclasses.dataclass(frozen=True, eq=False)
class AttributionGraph(Result, format="circuits-attribution-graph"):
    """What nodes wrote into each other in one prompt, attention patterns and norms' scales held, after weak ones were left out.

    A link's weight is what its source adds to what its target is computed from: a feature's pre-activation, or a logit less
    the mean of all logits, before the cap of a model that caps its logits."""

    model: str
    weights_sha256: str
    prompt: str
    tokens: tuple[str, ...]
    n_layers: int
    nodes: tuple[GraphNode, ...]
    sources: Int[Tensor, " link"]
    """Which node a link comes from, and which it goes to."""
    targets: Int[Tensor, " link"]
    weights: Float[Tensor, " link"]
    completeness: float
    """Of what all nodes read, weighed by their influence, the share that errors and whole MLPs did not write."""
    replacement: float
    """Of what reaches the logits from embeddings, errors and whole MLPs, the share that comes from embeddings."""
    nodes_before: int
    """How many nodes and links there were before weak ones were left out."""
    links_before: int
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.nodes)
        for ends in (self.sources, self.targets):
            if len(ends) != len(self.weights) or (len(ends) and not 0 <= int(ends.min()) <= int(ends.max()) < count):
                raise CircuitsError(f"a link of {count} nodes begins or ends at none of them")

    @property
    def summary(self) -> str:
        """How many nodes of which kind, and how much of all they stand for."""
        words = {"feature": "feature", "error": "error", "mlp": "MLP", "embedding": "embedding", "logit": "logit"}
        counts = {word: sum(node.kind == kind for node in self.nodes) for kind, word in words.items()}
        said = ", ".join(counted(count, word) for word, count in counts.items() if count)
        return (
            f"{said} and {len(self.weights):,} links, of {self.nodes_before:,} nodes and {self.links_before:,} links; what is "
            f"explained of what nodes read: {self.completeness:.0%}, of what reaches the logits: {self.replacement:.0%}."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a link: source, target, weight."""
        import pandas

        names = [node.name for node in self.nodes]
        ends = {"source": self.sources, "target": self.targets}
        columns = {key: [names[row] for row in rows.tolist()] for key, rows in ends.items()}
        return pandas.DataFrame({**columns, "weight": self.weights.tolist()})
