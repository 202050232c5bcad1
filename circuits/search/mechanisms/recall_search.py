"""How the search for a recall circuit goes backwards from the logits, and how far."""

import dataclasses
import math
from collections.abc import Callable

from circuits.errors import CircuitsError
from circuits.graph import Edge, Node, Reader
from circuits.models import Model
from circuits.search.mechanisms.recall_evidence import Claim, Evidence

SMALL = 64
"""Heads of a model that is searched whole unless told otherwise."""
FORWARDS = 52.0
"""Plain forwards over the pairs that the search takes, about, in a larger one."""
_SCREENED, _WHOLE = (48, 64), 512
"""Heads and neurons that are patched where forwards are counted; neurons where they are not."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How many heads and neurons are patched exactly, and how many plain forwards all may take; without a limit every edge
    between them is tested."""

    heads: int
    neurons: int
    forwards: float

    @classmethod
    def of(cls, model: Model, heads: int | None, neurons: int | None, forwards: float | None) -> "Effort":
        """As asked for; what is None by the size of the model. Raises CircuitsError for numbers that are none."""
        for name, value in {"most_heads": heads, "most_neurons": neurons, "most_forwards": forwards}.items():
            if value is not None and not value >= 0:
                raise CircuitsError(f"{name} is {value}; expected a number of at least 0")
        every = model.n_layers * model.n_heads
        if forwards is None:
            forwards = math.inf if every <= SMALL else FORWARDS
        screened = (min(every, _SCREENED[0]), _SCREENED[1]) if math.isfinite(forwards) else (every, _WHOLE)
        return cls(screened[0] if heads is None else heads, screened[1] if neurons is None else neurons, forwards)

    @property
    def screens(self) -> bool:
        """Whether only edges of large estimates are tested."""
        return math.isfinite(self.forwards)


@dataclasses.dataclass(eq=False)
class Search:
    """Goes backwards from the logits along edges that pass the test, from the node whose patch costs most."""

    evidence: Evidence
    min_effect: float
    most_nodes: int
    effort: Effort
    reserved: float
    """Forwards of what comes after the search."""
    writers: list[Node] = dataclasses.field(default_factory=list)
    """Nodes that may write: input, heads, and the neurons that passed."""
    edges: dict[Edge, tuple[Claim, ...]] = dataclasses.field(default_factory=dict)
    followed: int = 0
    """Nodes whose readings were tested, the logits not counted."""
    complete: bool = True
    """False where `most_nodes` or the forwards stopped the search."""
    patched: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """How many heads and neurons were patched, of how many."""

    def measure(self) -> None:
        """Patch the heads and neurons that count most to first order; those that move no prompt are left out."""
        evidence, model = self.evidence, self.evidence.model
        heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
        every = {"heads": len(heads), "neurons": model.n_layers * model.d_mlp}
        if self.effort.heads < len(heads):
            heads = evidence.screened("head", self.effort.heads)
        evidence.measure_nodes(heads, "patching heads")
        neurons = evidence.screened("neuron", self.effort.neurons)
        if neurons:
            evidence.measure_nodes(neurons, "patching neurons")
        kept = [neuron for neuron in neurons if self.passes(evidence.node_claim(neuron))]
        self.writers = [Node("input"), *sorted(heads + kept)]
        self.patched = {"heads": (len(heads), every["heads"]), "neurons": (len(neurons), every["neurons"])}

    def passes(self, claim: Claim) -> bool:
        """Whether an effect is large and sure enough."""
        return claim.prompts > 0 and claim.effect.effect >= self.min_effect and claim.effect.low > 0

    def grow(self, more: Callable[[], None]) -> None:
        """Test every edge into the logits, then every edge into what was found, until nothing new comes or no more may be
        spent; `more` is called where a node has new edges."""
        waiting: list[Node] = [Node("logits")]
        seen, read = set(waiting), set[Reader]()
        while waiting and len(seen) <= self.most_nodes and (not self.edges or self._affords(len(seen))):
            node, before = max(waiting, key=self._weight), len(self.edges)
            waiting.remove(node)
            for reader in self._readers(node):
                if reader in read:  # heads that share keys and values share these readers
                    continue
                read.add(reader)
                for writer in self._test(reader):
                    if writer.kind != "input" and writer not in seen:
                        seen.add(writer)
                        waiting.append(writer)
            self.followed += node.kind != "logits"
            if len(self.edges) > before and waiting:
                more()
        self.complete = not waiting

    def _weight(self, node: Node) -> float:
        return 0.0 if node.kind == "logits" else self.evidence.whole(node)

    def _affords(self, nodes: int) -> bool:
        # What follows patches each found node at some positions, and ablates all of them.
        return self.evidence.spent + self.reserved + 0.05 * nodes < self.effort.forwards

    def _readers(self, node: Node) -> list[Reader]:
        if node.kind != "head":
            return [Reader(node)]
        return [self.evidence.graph.reader_of(node, slot) for slot in ("q", "k", "v")]

    def _test(self, reader: Reader) -> list[Node]:
        allowed = set(self.evidence.graph.writers(reader))
        writers = [writer for writer in self.writers if writer in allowed]
        least = self.min_effect / 2 if self.effort.screens else None
        found = []
        for writer, claims in self.evidence.edge_claims(writers, reader, least=least).items():
            passed = tuple(claim for claim in claims if self.passes(claim))
            if passed:
                self.edges[Edge(writer, reader.node, reader.slot)] = passed
                found.append(writer)
        return found

    def nodes(self) -> list[Node]:
        """Heads and neurons on the found edges."""
        # Every node that was followed was found as a writer. Of the heads that share a key or value the others stay out.
        return sorted({edge.writer for edge in self.edges if edge.writer.kind != "input"})

    def about(self) -> dict[str, object]:
        """How much was looked at, as it stands in circuit files."""
        known: dict[str, object] = {"followed_all": self.complete, "patched": {k: list(v) for k, v in self.patched.items()}}
        if self.effort.screens:
            found = len(self.nodes())
            known |= {"followed": [min(self.followed, found), found], "forwards": round(self.evidence.spent, 1)}
        return known
