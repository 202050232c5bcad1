"""Neurons that were found as a circuit, which every other command takes."""

from circuits.errors import CircuitsError
from circuits.graph import Circuit
from circuits.graph.nodes import Edge, Node
from circuits.models import Model
from circuits.probes.ranking.results import NeuronRankings


def neuron_circuit(model: Model, rankings: NeuronRankings, way: str, count: int) -> Circuit:
    """The first neurons of a ranking with all edges among them, from the input and to the logits. Each neuron's evidence is its
    rank and what the ranking goes by, in its own units.

    Raises CircuitsError for another model, a ranking that is not there, and fewer than one neuron.

    Args:
        model: the model whose neurons were ranked.
        rankings: what `rank_neurons` has found.
        way: which ranking.
        count: how many of its first neurons.
    """
    if rankings.weights_sha256 != model.fingerprint:
        raise CircuitsError(f"these rankings are of another model, {rankings.model}, than {model.name}")
    if count < 1:
        raise CircuitsError(f"count={count}: expected one neuron at least")
    graph, row = model.graph(neurons=True), rankings.place_of(way)
    chosen = rankings.order[row, :count].tolist()
    names = rankings.names(way, count)
    nodes = sorted(Node.parse(name) for name in names)
    writers = [Node("input"), *nodes]
    edges = []
    for reader in (*nodes, Node("logits")):
        before = graph.writers_before(str(reader))
        edges += [Edge.parse(f"{writer}->{reader}") for writer in writers if graph.writer_index(writer) < before]
    evidence = {
        name: {"ranking": way, "rank": rank, **_known(float(rankings.scores[row, neuron]))}
        for rank, (name, neuron) in enumerate(zip(names, chosen, strict=True), 1)
    }
    about = {"model": model.name, "weights_sha256": model.fingerprint, "property": rankings.property, "ranking": way}
    about |= {"summary": f"the first {len(names)} neurons of {model.name} for {rankings.property} by {way}"}
    return Circuit(graph, edges, evidence=evidence, metadata=about)


def _known(score: float) -> dict[str, float]:
    return {} if score != score else {"score": score}
