"""How the search for a recall circuit goes backwards from the logits, and how far."""

import dataclasses
import math
from collections.abc import Callable

from circuits.errors import CircuitsError
from circuits.graph import Edge, Node, Reader
from circuits.models import Model
from circuits.search.mechanisms.recall_edges import Trial, claims, trials
from circuits.search.mechanisms.recall_evidence import Claim, Evidence

SMALL = 64
"""Heads of a model that is searched whole unless told otherwise."""
FORWARDS = 40.0
"""Plain forwards over both prompts of all pairs that the search takes, about, in a larger one."""
_HEADS, _NEURONS, _WHOLE = 36, 48, 512
"""Heads and neurons that are patched where there are FORWARDS, with others in proportion; neurons at most."""
_TOGETHER = 16
"""Edges into one reader that are tested before those into other nodes, where forwards are counted."""
_AFTER = 0.08
"""Forwards that each found node costs after the search, about: it is patched at some positions."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How many heads and neurons are patched exactly, and how many plain forwards all may take; without a limit (infinity)
    every edge between them is tested."""

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
        share = min(forwards / FORWARDS, float(every))  # that many times more is all of them
        heads = min(every, math.ceil(share * _HEADS)) if heads is None else heads
        neurons = min(_WHOLE, math.ceil(share * _NEURONS)) if neurons is None else neurons
        return cls(heads, neurons, forwards)

    @property
    def screens(self) -> bool:
        """Whether only edges of large estimates are tested."""
        return math.isfinite(self.forwards)


@dataclasses.dataclass(eq=False)
class RecallSearch:
    """Goes backwards from the logits along edges that pass the test, from the node whose patch costs most."""

    evidence: Evidence
    min_effect: float
    """Share of the gap that an edge must cost; where forwards are counted those are tested whose estimates reach half of it."""
    most_nodes: int
    effort: Effort
    reserved: float
    """Forwards of what comes after the search."""
    writers: list[Node] = dataclasses.field(default_factory=list)
    """Nodes that may write: input, heads, and the neurons that passed."""
    patched: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """How many heads and neurons were patched, of how many."""
    edges: dict[Edge, tuple[Claim, ...]] = dataclasses.field(default_factory=dict)
    found: set[Node] = dataclasses.field(default_factory=set)
    """Heads and neurons on the found edges."""
    waiting: list[Node] = dataclasses.field(default_factory=list)
    """Those of them whose readings were not looked at."""
    put_off: dict[Reader, list[Trial]] = dataclasses.field(default_factory=dict)
    """For each reading that was looked at, its edges that may cost enough and were not tested, the largest estimates first."""
    tested: int = 0
    """Edges that were patched."""
    looked: int = 0
    """Edges that were tested or estimated."""

    def measure(self) -> None:
        """Patch the heads and neurons that count most to first order; those that move no prompt are left out."""
        evidence, model = self.evidence, self.evidence.model
        heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
        every = {"heads": len(heads), "neurons": model.n_layers * model.d_mlp}
        if self.effort.heads < len(heads):
            heads = evidence.screened("head", self.effort.heads)
        evidence.measure_nodes(heads, "patching heads")
        neurons = evidence.screened("neuron", self.effort.neurons)
        evidence.measure_nodes(neurons, "patching neurons")
        kept = [neuron for neuron in neurons if self.passes(evidence.node_claim(neuron))]
        self.writers = [Node("input"), *sorted(heads + kept)]
        self.patched = {"heads": (len(heads), every["heads"]), "neurons": (len(neurons), every["neurons"])}

    def passes(self, claim: Claim) -> bool:
        """Whether an effect is large and sure enough."""
        return claim.prompts > 0 and claim.effect.effect >= self.min_effect and claim.effect.low > 0

    def grow(self, more: Callable[[], None]) -> None:
        """Test the edges into the logits, then those into what was found, from the node on whose patch costs most, then those
        that were put off, until nothing is left or no more may be spent; `more` is called where there are new edges."""
        self._follow(Node("logits"))
        before, goes_on = 0, True
        while goes_on and not self.complete and len(self.found) < self.most_nodes:
            if len(self.edges) > before:
                more()
            before, goes_on = len(self.edges), self._step()

    @property
    def complete(self) -> bool:
        """Whether everything was looked at that leads to what was found."""
        return not self.waiting and not any(self.put_off.values())

    def _step(self) -> bool:
        """Follow one more node, or test more edges into one that was; False where that would take too many forwards."""
        if not self.waiting:
            reader = max((one for one, rest in self.put_off.items() if rest), key=lambda one: self.put_off[one][0].estimate)
            return self._test(reader)
        if not self._affords(0.0):
            return False
        node = max(self.waiting, key=self.evidence.whole)
        self.waiting.remove(node)
        self._follow(node)
        return True

    def _affords(self, more: float) -> bool:
        return self.evidence.spent + more + self.reserved + _AFTER * len(self.found) < self.effort.forwards

    def _follow(self, node: Node) -> None:
        """Look at what a node reads: test the edges of the largest estimates."""
        slots = ("q", "k", "v") if node.kind == "head" else ()
        readers = [self.evidence.graph.reader_of(node, slot) for slot in slots] or [Reader(node)]
        least = self.min_effect / 2 if self.effort.screens else None
        for reader in readers:
            if reader in self.put_off:  # heads that share keys and values share these readers
                continue
            allowed = set(self.evidence.graph.writers(reader))
            writers = [writer for writer in self.writers if writer in allowed]
            self.looked += len(writers)
            self.put_off[reader] = trials(self.evidence, writers, reader, least=least)
            self._test(reader)

    def _test(self, reader: Reader) -> bool:
        """Test the next edges into a reader, as many as may be, and say whether there were any."""
        rest, count, price = self.put_off[reader], 0, 0.0
        free = reader.node.kind == "logits"  # an edge into the logits costs no layer
        most = len(rest) if free or not self.effort.screens else min(len(rest), _TOGETHER)
        while count < most and (free or self._affords(price + rest[count].price)):
            price += rest[count].price
            count += 1
        for writer, known in claims(self.evidence, reader, rest[:count]).items():
            if passed := tuple(claim for claim in known if self.passes(claim)):
                self.edges[Edge(writer, reader.node, reader.slot)] = passed
                if writer.kind != "input" and writer not in self.found:
                    self.found.add(writer)
                    self.waiting.append(writer)
        self.put_off[reader] = rest[count:]
        self.tested += count
        return count > 0

    def nodes(self) -> list[Node]:
        """Heads and neurons on the found edges, in the order of computation."""
        # Every reader was found as a writer before. Of the heads that share a key or value the others stay out.
        return sorted(self.found)

    def about(self) -> dict[str, object]:
        """How much was looked at, as it stands in circuit files; where forwards are counted also `followed` (nodes whose
        readings were looked at, of those found), `tested` (edges into these that were patched, of those from patched nodes),
        and `left_out` (edges of large enough estimates among them that were not)."""
        known: dict[str, object] = {"followed_all": self.complete, "patched": {k: list(v) for k, v in self.patched.items()}}
        if self.effort.screens:
            known["followed"] = [len(self.found) - len(self.waiting), len(self.found)]
            known |= {"tested": [self.tested, self.looked], "left_out": sum(map(len, self.put_off.values()))}
        return known
