"""Attribution graphs: links are what a slow run loses without their source, and add up; influence by walking all paths."""

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from circuits.attribution.relevance import held_norm
from circuits.concepts import GraphNode, attribution_graph
from circuits.concepts.feature_nodes.direct import EMBEDDED
from circuits.concepts.feature_nodes.influence import influence_of, kept_links
from circuits.concepts.feature_nodes.taps import Tap, taps_of
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import standing
from circuits.errors import CircuitsError, PromptError
from circuits.models import Model, Run
from circuits.models.layers import linear, mix, mlp_output, neuron_activations, norm_scale
from circuits.models.weights import Norm
from tests.concepts.test_feature_nodes import random_dictionary, random_model

SETS = (
    (("m0", "in0"), ("m1", "in1"), ("m2", "in2")),
    (("m0", "mid0"), ("resid2", ""), ("m2", "unit2")),
    (("resid0", ""), ("attn1", ""), ("m2", "resid2")),
    (("a1", ""), ("mid1", ""), ("m1", ""), ("resid3", "")),
    (("m0", ""), ("a2", ""), ("m2", "in2")),
)


def held(x: Tensor, norm: Norm | None, at: Tensor) -> Tensor:
    """A norm of x at the scale that it has at another place."""
    if norm is None:
        return x
    out = held_norm(x, dataclasses.replace(norm, bias=None)) * norm_scale(x, norm) / norm_scale(at, norm)
    return out if norm.bias is None else out + norm.bias


def slow_reads(model: Model, run: Run, taps: Mapping[FeaturePlace, Tap], added: Mapping[FeaturePlace, Tensor]) -> dict:
    """What every reader reads when some nodes write more, patterns and scales held: at a place, what its own dictionary reads
    and what others read there."""
    weights, reads = model.weights, {}

    def at(place: FeaturePlace, x: Tensor) -> Tensor:
        """What goes on from a place."""
        own = x
        if place in taps:
            x = standing(run, place) + added.get(place, 0.0)
            dictionary, source = taps[place].dictionary, taps[place].reads
            if dictionary.W_skip is not None:
                live = own if source == place else reads[source][1]
                x = x + (live - standing(run, source)) @ dictionary.W_skip
        reads[place] = (own, x)
        return x

    x = run.residuals[0] + added.get(EMBEDDED, 0.0)
    for layer, block in enumerate(weights.blocks):
        places = {kind: FeaturePlace(kind, layer) for kind in ("residual", "heads", "attention", "middle", "reading", "mlp")}
        x = before = at(places["residual"], x)
        attention = block.attention
        v = linear(held(x, block.attention_norm, run.residuals[layer]), attention.W_V, attention.b_V)
        z = mix(run.pattern(layer), v.unflatten(-1, (attention.n_key_value_heads, -1)), attention).flatten(2)
        z = at(places["heads"], z)
        was = linear(run.z[layer].flatten(2), attention.W_O, attention.b_O)
        out = held(linear(z, attention.W_O, attention.b_O), block.attention_post_norm, was)
        x = at(places["middle"], x + at(places["attention"], out))
        if block.mlp is None:
            continue
        source, real = (before, run.residuals[layer]) if weights.parallel else (x, run.middles[layer])
        normed = at(places["reading"], held(source, block.mlp_norm, real))
        live = mlp_output(neuron_activations(normed, block.mlp), block.mlp, block.mlp_post_norm)
        place = places["mlp"]
        if place in taps:
            x = x + at(place, live)
        else:
            reads[place] = (live, live)
            x = x + standing(run, place) + added.get(place, 0.0)
    at(FeaturePlace("residual", len(weights.blocks)), x)
    return reads


@pytest.mark.parametrize("seed", range(10))
def test_links_are_what_a_source_adds_where_patterns_and_scales_are_held(seed: int) -> None:
    model, pairs = random_model(seed + 40, causal=True, score_cap=None)
    places = SETS[seed % len(SETS)]
    given = [random_dictionary(model, site, seed + n, reads, skip=n == 0) for n, (site, reads) in enumerate(places)]
    length = int(pairs.clean.mask[0].sum())
    prompt = dataclasses.replace(pairs[:1].clean, ids=pairs.clean.ids[:1, :length], mask=pairs.clean.mask[:1, :length])
    graph = attribution_graph(model, given, prompt, nodes=1.0, links=1.0, logits=2)
    taps = {tap.writes: tap for tap in taps_of(model, given)}
    run = model.run(prompt)
    whole = {(int(t), int(s)): float(w) for t, s, w in zip(graph.targets, graph.sources, graph.weights, strict=True)}
    step, base = 1e-4, slow_reads(model, run, taps, {})
    for row, node in list(enumerate(graph.nodes))[:: max(1, len(graph.nodes) // 12)]:
        place = EMBEDDED if node.kind == "embedding" else FeaturePlace.parse(node.place) if node.kind != "logit" else None
        if place is None:
            continue
        vector = vector_of(model, run, taps, node)
        reads = []
        for size in (step, -step):
            more = torch.zeros_like(run.residuals[0][..., :1]).expand(-1, -1, len(vector)).clone()
            more[0, node.position] = size * vector
            reads.append(slow_reads(model, run, taps, {place: more}))
        for target, reader in enumerate(graph.nodes):
            if reader.kind not in ("feature", "logit"):
                continue
            change = read_by(model, run, taps, reader, reads[0]) - read_by(model, run, taps, reader, reads[1])
            wanted = float(change) / (2 * step)
            assert whole.get((target, row), 0.0) == pytest.approx(wanted, abs=1e-6, rel=1e-4), (node, reader)
    for reader in graph.nodes:  # the slow run is the model where nothing is added
        if reader.kind == "feature":
            assert float(read_by(model, run, taps, reader, base)) == pytest.approx(reader.value, abs=1e-8)
    assert graph.weights_sha256 == model.fingerprint and 0 <= graph.replacement <= 1 and 0 <= graph.completeness <= 1


def vector_of(model: Model, run: Run, taps: Mapping[FeaturePlace, Tap], node: GraphNode) -> Tensor:
    """What a node writes."""
    kind, position = node.kind, node.position
    if kind == "embedding":
        return run.residuals[0][0, position]
    place = FeaturePlace.parse(node.place)
    if kind == "mlp":
        return standing(run, place)[0, position]
    apart = taps[place].apart(run)
    if kind == "error":
        return apart.error[0, position]
    return node.value * taps[place].dictionary.W_dec[node.index]


def read_by(model: Model, run: Run, taps: Mapping[FeaturePlace, Tap], node: GraphNode, reads: dict) -> Tensor:
    """What a feature or a logit is computed from."""
    position, index = node.position, node.index
    if node.kind == "logit":
        x = reads[FeaturePlace("residual", model.n_layers)][1]
        logits = held(x, model.weights.final_norm, run.residuals[-1])[0, position] @ model.weights.W_U
        return logits[index] - logits.mean()
    tap = taps[FeaturePlace.parse(node.place)]
    own, other = reads[tap.reads]
    return tap.dictionary.pre_activation((own if tap.reads == tap.writes else other)[0, position], index)


def test_influence_is_the_sum_over_all_paths() -> None:
    links = torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril(-1)
    start = torch.tensor([0.0, 0, 0, 0, 0, 0.25, 0.5], dtype=torch.float64)
    shares = links.abs() / links.abs().sum(dim=1, keepdim=True).clamp(min=1e-30)
    wanted, reached = torch.zeros(7, dtype=torch.float64), start
    for _ in range(7):
        reached = reached @ shares
        wanted = wanted + reached
    torch.testing.assert_close(influence_of(links, start), wanted)
    for share in (0.3, 0.9, 1.0):
        kept = kept_links(links, start, share)
        carried = shares * (wanted + start)[:, None]
        assert float(carried[kept].sum()) >= share * float(carried.sum()) - 1e-12
        least = carried[kept].min()
        assert not bool((carried[~kept] > least).any()), "the largest are kept"
    assert bool((kept_links(links, start, 1.0) <= (links != 0)).all())


def test_weak_nodes_are_left_out_and_what_is_asked_wrongly_is_refused() -> None:
    model, pairs = random_model(3, causal=True)
    own = [random_dictionary(model, "m0", 0, "in0"), random_dictionary(model, "resid2", 3)]
    prompt = dataclasses.replace(pairs[:1].clean, ids=pairs.clean.ids[:1, :2], mask=torch.ones(1, 2, dtype=torch.bool))
    whole, small = (attribution_graph(model, own, prompt, nodes=n, links=n) for n in (1.0, 0.5))
    assert len(small.nodes) < len(whole.nodes) and whole.nodes_before == small.nodes_before
    few = attribution_graph(model, own, prompt, nodes=1.0, links=1.0, features=3)
    assert sum(node.kind == "feature" for node in few.nodes) <= 3 < sum(node.kind == "feature" for node in whole.nodes)
    assert whole.to_dataframe().shape == (len(whole.weights), 3) and "links" in whole.summary
    tight = attribution_graph(model, own, prompt, nodes=1.0, links=1.0, budget=1)
    torch.testing.assert_close(tight.weights, whole.weights)
    with pytest.raises(CircuitsError, match="shares above 0"):
        attribution_graph(model, own, prompt, nodes=0.0)
    with pytest.raises(PromptError, match="one prompt without pads"):
        attribution_graph(model, own, pairs.clean)
