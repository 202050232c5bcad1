"""From a prompt to its attribution graph: the nodes, what each wrote into each, and which of it counts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.feature_nodes.direct import EMBEDDED, Sources, StraightBack, Targets, through
from circuits.concepts.feature_nodes.graph import AttributionGraph, GraphNode
from circuits.concepts.feature_nodes.influence import influence_of, kept_links, kept_nodes, shares_of
from circuits.concepts.feature_nodes.taps import Tap, taps_of
from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import standing, written_rows
from circuits.errors import CircuitsError, PromptError
from circuits.lenses.readout import ends_of_tokens
from circuits.models import Model, Run, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import refuse_non_finite
from circuits.progress import Progress, silent

LOGITS, FEATURES = 10, 4096
"""Logits and features of a graph at most; what further features write counts as error."""
NODES, LINKS = 0.8, 0.98
"""Shares of the influence that the nodes and the links that are kept have together."""
_WORDS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class _GraphParts:
    """Nodes with what they write, in the order of the graph's, and the features among them that read."""

    nodes: list[GraphNode]
    sources: dict[FeaturePlace, Sources]
    own: dict[FeaturePlace, Targets]
    others: dict[FeaturePlace, Targets]
    read: list[int]
    """Which node each target is."""


def attribution_graph(
    model: Model,
    dictionaries: Dictionary | Sequence[Dictionary],
    prompt: str | TokenBatch,
    *,
    logits: int = LOGITS,
    share: float = 0.95,
    nodes: float = NODES,
    links: float = LINKS,
    features: int = FEATURES,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> AttributionGraph:
    """What wrote what in one prompt: embeddings, active features, what dictionaries leave over, and MLPs without one, up to the
    likeliest next tokens, with attention patterns and norms' scales held at what they were (Ameisen et al. 2025).

    Between such nodes all is linear, so that what they write into a feature of a transcoder or of a residual stream adds up,
    with biases, to its pre-activation; through an MLP to a dictionary of its output it is the slope there. Weak nodes and
    links are left out by their influence on the logits. Raises GraphError for dictionaries that do not fit, PromptError for
    an empty prompt, CircuitsError for shares that are none.

    Args:
        model: the model.
        dictionaries: one or several, of different places.
        prompt: the text, or one prompt's tokens.
        logits: next tokens that are shown at most.
        share: of the probability that they cover, if so many do.
        nodes: the share of the influence that the kept nodes have; 1 keeps all.
        links: the same of links.
        features: active features at most, those that write most.
        budget: bytes that are held above the model.
        progress: hears what is being done.
    """
    if not (0 < nodes <= 1 and 0 < links <= 1 and 0 < share <= 1) or min(logits, features) < 1:
        raise CircuitsError(f"nodes={nodes}, links={links}, share={share}: expected shares above 0, up to 1")
    taps, report = taps_of(model, dictionaries), progress or silent
    tokens = model.to_tokens([prompt]) if isinstance(prompt, str) else prompt
    if len(tokens) != 1 or not bool(tokens.mask.all()):
        raise PromptError("an attribution graph is of one prompt without pads")
    report("running the prompt", 0, 1)
    with torch.no_grad():
        run = forward(model.weights, model.prepare(tokens), keep="patterns")
    refuse_non_finite(run)
    found = _nodes_of(model, run, taps, features)
    probabilities = _logits_of(model, run, found, logits, share)
    matrix = _links(run, taps, found, budget, report)
    return _graph(model, run, tokens, taps, found, matrix, probabilities, nodes=nodes, links=links)


@torch.no_grad()
def _nodes_of(model: Model, run: Run, taps: Sequence[Tap], most: int) -> _GraphParts:
    """Embeddings, features, errors and MLPs that no dictionary takes apart."""
    found = _GraphParts([], {}, {}, {}, [])
    width = run.residuals[0].shape[1]
    ids = run.tokens.ids[0].tolist()
    stream = [GraphNode("embedding", "embedding", -1, place, ids[place], 0.0, 0.0) for place in range(width)]
    _add(found, EMBEDDED, stream, run.residuals[0][0])
    least = _threshold(run, taps, most)
    taken = {tap.writes: tap for tap in taps}
    for layer, block in enumerate(run.weights.blocks):
        place = FeaturePlace("mlp", layer)
        if block.mlp is not None and place not in taken:
            rows = [GraphNode("mlp", place.name, layer, at, -1, 0.0, 0.0) for at in range(width)]
            _add(found, place, rows, standing(run, place)[0])
    for tap in taps:
        _add_tap(found, run, tap, least)
    return found


def _add(found: _GraphParts, place: FeaturePlace, nodes: list[GraphNode], vectors: Tensor) -> None:
    """Nodes that write at a place."""
    first = len(found.nodes)
    rows = torch.arange(first, first + len(nodes), device=vectors.device)
    positions = torch.tensor([node.position for node in nodes], dtype=torch.long, device=vectors.device)
    found.nodes.extend(nodes)
    found.sources[place] = Sources(rows, positions, vectors)


def _threshold(run: Run, taps: Sequence[Tap], most: int) -> float:
    """How much a feature must write to be among so many that write most."""
    active = [(tap, *_active(run, tap)[1:]) for tap in taps]
    every = torch.cat([value * tap.dictionary.W_dec.norm(dim=1)[feature] for tap, feature, value in active])
    return float(every.topk(most).values[-1]) if len(every) > most else 0.0


def _active(run: Run, tap: Tap) -> tuple[Tensor, Tensor, Tensor]:
    """Active features: tokens, numbers, activations."""
    parts = []
    for some, z in tap.dictionary.blocks(standing(run, tap.reads)[0]):
        at, feature = z.nonzero(as_tuple=True)
        parts.append((at, feature + some.start, z[at, feature]))
    at, feature, value = (torch.cat(column) for column in zip(*parts, strict=True))
    return at, feature, value


def _add_tap(found: _GraphParts, run: Run, tap: Tap, least: float) -> None:
    """A dictionary's active features, each a source and a target, and what it leaves over at each token."""
    dictionary, layer = tap.dictionary, _layer_of(tap)
    at, feature, value = _active(run, tap)
    vectors = value[:, None] * dictionary.W_dec[feature]
    kept = vectors.norm(dim=1) >= least
    at, feature, value, vectors = at[kept], feature[kept], value[kept], vectors[kept]
    columns = zip(at.tolist(), feature.tolist(), value.tolist(), strict=True)
    nodes = [GraphNode("feature", tap.name, layer, place, one, z, 0.0) for place, one, z in columns]
    r, y = standing(run, tap.reads)[0], standing(run, tap.writes)[0]
    # What features write that are left out counts as error, so that all nodes still add up to what stands there.
    error = y - dictionary.b_dec - dictionary.skipped(r)
    error = error.index_add(0, at, -vectors)
    nodes += [GraphNode("error", tap.name, layer, place, -1, 0.0, 0.0) for place in range(len(y))]
    first = len(found.nodes)
    _add(found, tap.writes, nodes, torch.cat([vectors, error]))
    rows = torch.arange(len(found.read), len(found.read) + len(at), device=at.device)
    found.read.extend(range(first, first + len(at)))
    side = found.own if tap.reads == tap.writes else found.others
    one = Targets(rows, at, dictionary.W_enc[feature])
    side[tap.reads] = one if tap.reads not in side else _both(side[tap.reads], one)


def _both(first: Targets, second: Targets) -> Targets:
    names = [field.name for field in dataclasses.fields(Targets)]
    return Targets(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in names))


def _layer_of(tap: Tap) -> int:
    """The layer at which a dictionary's nodes are drawn: that which writes what it takes apart."""
    return max(0, tap.writes.layer - 1) if tap.writes.kind == "residual" else tap.writes.layer


@torch.no_grad()
def _logits_of(model: Model, run: Run, found: _GraphParts, most: int, share: float) -> list[float]:
    """Adds the likeliest next tokens to the nodes and to those that read; gives their probabilities."""
    weights, place = model.weights, run.residuals[0].shape[1] - 1
    chances = run.logits[0, -1].double().softmax(dim=-1)
    values, ids = chances.topk(min(most, len(chances)))
    count = min(len(values), int((values.cumsum(0) < share).sum()) + 1)
    values, ids = values[:count], ids[:count]
    words = _words(model, ids)
    rows = torch.arange(len(found.read), len(found.read) + count, device=ids.device)
    found.read.extend(range(len(found.nodes), len(found.nodes) + count))
    about = zip(ids.tolist(), values.tolist(), words, strict=True)
    layer = len(weights.blocks)
    found.nodes.extend(GraphNode("logit", "logits", layer, place, token, chance, 0.0, word) for token, chance, word in about)
    directions = (weights.W_U[:, ids] - weights.W_U.mean(dim=1, keepdim=True)).T
    vectors = through(directions, weights.final_norm, run.residuals[-1][0, -1:])
    last = FeaturePlace("residual", layer)
    one = Targets(rows, torch.full_like(rows, place), vectors)
    found.others[last] = one if last not in found.others else _both(found.others[last], one)
    return values.tolist()


def _links(run: Run, taps: Sequence[Tap], found: _GraphParts, budget: int, report: Progress) -> Float[Tensor, "node node"]:
    """What each node (a column) writes into each other (a row), so many targets at a time."""
    x, count = run.residuals[0], len(found.nodes)
    a_target = x.element_size() * x[0].numel() * 12
    at_once = max(1, budget // a_target)
    matrix = x.new_zeros(count, count)
    by_place = {tap.writes: tap for tap in taps}
    for start in range(0, len(found.read), at_once):
        report("attributing", start, len(found.read))
        some = range(start, min(start + at_once, len(found.read)))
        sides = [{place: _within(one, some) for place, one in side.items()} for side in (found.own, found.others)]
        links = x.new_zeros(len(some), count)
        matrix[found.read[some.start : some.stop]] = StraightBack(run, by_place, found.sources, sides[0], sides[1], links).go()
    report("attributing", len(found.read), len(found.read))
    return matrix


def _within(targets: Targets, some: range) -> Targets:
    kept = (targets.rows >= some.start) & (targets.rows < some.stop)
    return Targets(targets.rows[kept] - some.start, targets.positions[kept], targets.vectors[kept])


def _graph(
    model: Model,
    run: Run,
    tokens: TokenBatch,
    taps: Sequence[Tap],
    found: _GraphParts,
    matrix: Tensor,
    chances: list[float],
    *,
    nodes: float,
    links: float,
) -> AttributionGraph:
    """The graph without what has little influence."""
    matrix = matrix.double().cpu()
    start = torch.zeros(len(matrix), dtype=torch.float64)
    start[-len(chances) :] = torch.tensor(chances, dtype=torch.float64)
    influence = influence_of(matrix, start)
    always = torch.tensor([node.kind in ("embedding", "logit") for node in found.nodes])
    unexplained = torch.tensor([node.kind in ("error", "mlp") for node in found.nodes])
    roots = torch.tensor([node.kind == "embedding" for node in found.nodes])
    reached = influence + start
    explained = 1 - (shares_of(matrix) * unexplained).sum(dim=1)
    readers = (matrix != 0).any(dim=1)
    complete = float((reached * explained)[readers].sum() / reached[readers].sum().clamp(min=1e-30))
    ended = influence[roots].sum(), influence[unexplained].sum()
    keep = kept_nodes(influence, always, nodes)
    rows = keep.nonzero()[:, 0]
    small = matrix[rows][:, rows]
    linked = kept_links(small, start[rows], links)
    target, source = linked.nonzero(as_tuple=True)
    labels = _labels(model, taps, [found.nodes[row] for row in rows.tolist()])
    chosen = [
        dataclasses.replace(found.nodes[row], influence=float(influence[row]), label=label)
        for row, label in zip(rows.tolist(), labels, strict=True)
    ]
    words = _words(model, tokens.ids[0])
    details: dict[str, Any] = {"nodes": nodes, "links": links, "dictionaries": {tap.name: tap.dictionary.name for tap in taps}}
    return AttributionGraph(
        model=model.name,
        weights_sha256=model.fingerprint,
        prompt="".join(words),
        tokens=tuple(words),
        n_layers=model.n_layers,
        nodes=tuple(chosen),
        sources=source,
        targets=target,
        weights=small[target, source],
        completeness=complete,
        replacement=float(ended[0] / (ended[0] + ended[1]).clamp(min=1e-30)),
        nodes_before=len(matrix),
        links_before=int((matrix != 0).sum()),
        metadata=details,
    )


def _words(model: Model, ids: Tensor) -> list[str]:
    """Tokens as text; of a model without a tokenizer, as numbers."""
    return model.to_token_strings(ids) if model.tokenizer is not None else [str(one) for one in ids.tolist()]


def _labels(model: Model, taps: Sequence[Tap], nodes: Sequence[GraphNode]) -> list[str]:
    """What nodes are called besides: a feature by the tokens that it raises most, an embedding by its token."""
    if model.tokenizer is None:
        return [node.label for node in nodes]
    words: dict[tuple[str, int], str] = {}
    for tap in taps:
        numbers = sorted({node.index for node in nodes if node.kind == "feature" and node.place == tap.name})
        if numbers:
            _, ids = ends_of_tokens(model, written_rows(model, tap.dictionary, numbers), _WORDS)[0]
            for number, row in zip(numbers, ids, strict=True):
                words[tap.name, number] = " ".join(repr(token) for token in model.to_token_strings(row))
    found = []
    for node in nodes:
        raised = words.get((node.place, node.index), "")
        own = model.to_token_strings(torch.tensor([node.index]))[0] if node.kind == "embedding" else node.label
        found.append(f"raises {raised}" if raised else own)
    return found
