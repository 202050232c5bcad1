"""A slow and obvious language model: one prompt, plain loops over layers, heads and positions, numpy in float64.

It is written from the definitions and shares nothing with the package. Weights come under TransformerLens's names, with
matrices as `nn.Linear` stores them (`y = W x + b`). Only the rotary table is made in float32 with torch, as the
originals make it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

Array = np.ndarray
Change = Callable[[int, Array], Array]
"""From a position and the value there to the new value."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the weights alone do not say."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    activation: str = "gelu"
    norm: str | None = "LN"
    """LN, LNPre, RMS, RMSPre, or None; the Pre kinds have no gain and no bias."""
    final_rms: bool = False
    eps: float = 1e-5
    positions: str = "learned"
    """learned, rotary, alibi."""
    adjacent: bool = True
    rotary_dim: int = 0
    rotary_base: float = 10000.0
    rotary_bases: tuple[float | None, ...] = ()
    """One a layer in place of `rotary_base`; None: a layer without rotary positions."""
    position_scale: float = 1.0
    slopes: tuple[float, ...] = ()
    parallel: bool = False
    one_norm: bool = False
    """A parallel block whose MLP reads through the attention's norm."""
    post_norms: bool = False
    key_norm: str | None = None
    """Norm of queries and keys: over each "head", over "all" heads together, or None."""
    score_scale: float = 1.0
    score_cap: float | None = None
    logit_cap: float | None = None
    windows: tuple[int | None, ...] = ()
    causal: bool = True
    embedding_scale: float = 1.0
    embedding_norm: bool = False


@dataclasses.dataclass
class Result:
    """What one prompt left behind: lists by layer, then arrays by position."""

    logits: Array
    residuals: list[Array]
    z: list[Array]
    neurons: list[Array]
    patterns: list[Array]


@dataclasses.dataclass(frozen=True)
class Node:
    """A place that can be changed: ("input" | "head" | "neuron" | "mlp", layer, index or None); and what a patch can reach
    besides: "residual" (before a layer), "attention", "middle", each head's or group's "q", "k", "v", the row of "pattern"
    of each query, the flags "knockout" of the keys that a query may not see, and what one reader reads of the residual
    stream: "q_in", "k_in", "v_in", "mlp_in", "neuron_in"."""

    kind: str
    layer: int = 0
    index: int | None = None


def run(
    shape: Shape,
    weights: Mapping[str, Array],
    ids: Sequence[int],
    changes: Sequence[tuple[Node, Change]] = (),
    patterns: Sequence[Array] | None = None,
) -> Result:
    """Run one prompt; `changes` are made in order; `patterns` `[head query key]` a layer replace the model's own."""
    stream = [embedded(shape, weights, token, position) for position, token in enumerate(ids)]
    stream = changed(changes, Node("input"), stream)
    result = Result(np.zeros(0), [np.stack(stream)], [], [], [])
    for layer in range(shape.n_layers):
        stream = changed(changes, Node("residual", layer), stream)
        result.residuals[-1] = np.stack(stream)
        stream = block(shape, weights, layer, stream, changes, None if patterns is None else patterns[layer], result)
        result.residuals.append(np.stack(stream))
    stream = changed(changes, Node("residual", shape.n_layers), stream)
    result.logits = np.stack([logits(shape, weights, x) for x in stream])
    return result


def block(
    shape: Shape,
    weights: Mapping[str, Array],
    layer: int,
    stream: list[Array],
    changes: Sequence[tuple[Node, Change]],
    pattern: Array | None,
    result: Result,
) -> list[Array]:
    """The residual stream after one layer."""
    name = f"blocks.{layer}"
    added = attention(shape, weights, layer, stream, changes, pattern, result)
    if shape.post_norms:
        added = [normed(shape, weights, f"{name}.ln1_post", x) for x in added]
    added = changed(changes, Node("attention", layer), added)
    after = [x + a for x, a in zip(stream, added, strict=True)]
    after = changed(changes, Node("middle", layer), after)
    if f"{name}.mlp.in.weight" not in weights:
        return after
    source = stream if shape.parallel else after
    norm = f"{name}.ln1" if shape.one_norm else f"{name}.ln2"
    source = changed(changes, Node("mlp_in", layer), source)
    neurons = [activations(shape, weights, name, normed(shape, weights, norm, x)) for x in source]
    for index in {node.index for node, _ in changes if (node.kind, node.layer) == ("neuron_in", layer)}:
        moved = changed(changes, Node("neuron_in", layer, index), source)
        for position, (x, own) in enumerate(zip(moved, source, strict=True)):
            reads = normed(shape, weights, norm, own)
            new = activations(shape, weights, name, reads, {index: normed(shape, weights, norm, x)})[index]
            neurons[position][index] = new
    for index in range(len(neurons[0])):
        single = changed(changes, Node("neuron", layer, index), [n[index : index + 1] for n in neurons])
        neurons = [np.concatenate([n[:index], s, n[index + 1 :]]) for n, s in zip(neurons, single, strict=True)]
    result.neurons.append(np.stack(neurons))
    written = [affine(weights, f"{name}.mlp.out", n) for n in neurons]
    if shape.post_norms:
        written = [normed(shape, weights, f"{name}.ln2_post", x) for x in written]
    written = changed(changes, Node("mlp", layer), written)
    return [x + w for x, w in zip(after, written, strict=True)]


def attention(
    shape: Shape,
    weights: Mapping[str, Array],
    layer: int,
    stream: list[Array],
    changes: Sequence[tuple[Node, Change]],
    given: Array | None,
    result: Result,
) -> list[Array]:
    """What the attention of one layer writes at each position."""
    name, length = f"blocks.{layer}.attn", len(stream)
    kept, patterns, output = [], [], [np.zeros_like(stream[0]) for _ in stream]

    plain = [normed(shape, weights, f"blocks.{layer}.ln1", x) for x in stream]

    def slot(kind: str, index: int) -> list[Array]:
        moved = changed(changes, Node(f"{kind}_in", layer, index), stream)
        reads = plain if moved is stream else [normed(shape, weights, f"blocks.{layer}.ln1", x) for x in moved]
        vectors = [vector(shape, weights, name, kind, index, x, p) for p, x in enumerate(reads)]
        return changed(changes, Node(kind, layer, index), vectors)

    for head in range(shape.n_heads):
        group = head * shape.n_key_value_heads // shape.n_heads
        q, k, v = slot("q", head), slot("k", group), slot("v", group)
        blocked = [np.zeros(length, dtype=bool) for _ in range(length)]
        for index in (None, head):
            blocked = changed(changes, Node("knockout", layer, index), blocked)
        rows = [attention_row(shape, layer, head, q[query], k, query, blocked[query]) for query in range(length)]
        rows = np.stack(changed(changes, Node("pattern", layer, head), rows))
        if given is not None:
            rows = given[head]
        z = [sum((rows[query][key] * v[key] for key in range(length)), np.zeros(shape.d_head)) for query in range(length)]
        z = changed(changes, Node("head", layer, head), z)
        columns = slice(head * shape.d_head, (head + 1) * shape.d_head)
        for position in range(length):
            output[position] = output[position] + weights[f"{name}.o.weight"][:, columns] @ z[position]
        kept.append(z)
        patterns.append(rows)
    result.z.append(np.array(kept).transpose(1, 0, 2))
    result.patterns.append(np.array(patterns))
    bias = weights.get(f"{name}.o.bias")
    return output if bias is None else [x + bias for x in output]


def vector(shape: Shape, weights: Mapping[str, Array], name: str, slot: str, head: int, x: Array, position: int) -> Array:
    """The query, key or value of one head at one position."""
    whole = affine(weights, f"{name}.{slot}", x)
    rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
    gain = weights.get(f"{name}.{slot}_norm.weight")
    if gain is None:
        own = whole[rows]
    elif shape.key_norm == "all":
        own = (whole / math.sqrt(float(np.mean(whole**2)) + shape.eps) * gain)[rows]
    else:
        own = whole[rows] / math.sqrt(float(np.mean(whole[rows] ** 2)) + shape.eps) * gain
    base = shape.rotary_bases[int(name.split(".")[1])] if shape.rotary_bases else shape.rotary_base
    return own if base is None or shape.positions != "rotary" or slot == "v" else rotated(shape, own, position, base)


def rotated(shape: Shape, x: Array, position: int, base: float) -> Array:
    """Turn pair i of the first `rotary_dim` entries by position / base^(2 i / rotary_dim)."""
    out, pairs = x.copy(), shape.rotary_dim // 2
    for pair in range(pairs):
        first, second = (2 * pair, 2 * pair + 1) if shape.adjacent else (pair, pair + pairs)
        cos, sin = angle(position, pair, shape.position_scale, base, shape.rotary_dim)
        out[first] = x[first] * cos - x[second] * sin
        out[second] = x[second] * cos + x[first] * sin
    return out


@functools.cache
def angle(position: int, pair: int, position_scale: float, rotary_base: float, rotary_dim: int) -> tuple[float, float]:
    """Cosine and sine of a pair's angle, in float32."""
    place = torch.tensor(position, dtype=torch.float32) / position_scale
    frequency = 1.0 / rotary_base ** (torch.tensor(2.0 * pair) / rotary_dim)
    return float(torch.cos(place * frequency)), float(torch.sin(place * frequency))


def attention_row(shape: Shape, layer: int, head: int, q: Array, k: list[Array], query: int, blocked: Array) -> Array:
    """How much one query attends to each key."""
    window = shape.windows[layer] if shape.windows else None
    scores: dict[int, float] = {}
    for key in range(len(k)):
        if (shape.causal and key > query) or (window is not None and abs(query - key) >= window):
            continue
        if blocked[key]:
            continue
        score = float(q @ k[key]) * shape.score_scale
        if shape.score_cap is not None:
            score = shape.score_cap * math.tanh(score / shape.score_cap)
        scores[key] = score + (shape.slopes[head] * key if shape.slopes else 0.0)
    highest = max(scores.values())
    total = sum(math.exp(score - highest) for score in scores.values())
    return np.array([math.exp(scores[key] - highest) / total if key in scores else 0.0 for key in range(len(k))])


def embedded(shape: Shape, weights: Mapping[str, Array], token: int, position: int) -> Array:
    """The residual stream of one token before layer 0."""
    x = weights["embed.weight"][token] * shape.embedding_scale
    if shape.embedding_norm:
        x = normed(shape, weights, "embed_ln", x)
    return x + weights["pos_embed.weight"][position] if shape.positions == "learned" else x


def activations(
    shape: Shape, weights: Mapping[str, Array], name: str, x: Array, others: Mapping[int, Array] | None = None
) -> Array:
    """The activation of every neuron of one layer at one position; the neurons in `others` read something else."""

    def inner(part: str) -> Array:
        out = affine(weights, f"{name}.mlp.{part}", x)
        for index, other in (others or {}).items():
            out[index] = affine(weights, f"{name}.mlp.{part}", other)[index]
        return out

    if f"{name}.mlp.gate.weight" not in weights:
        return nonlinear(shape.activation, inner("in"))
    return nonlinear(shape.activation, inner("gate")) * inner("in")


def nonlinear(kind: str, x: Array) -> Array:
    """The activation functions, from their papers."""
    if kind == "solu":
        raised = np.exp(x - x.max())
        return x * raised / raised.sum()
    root = math.sqrt(2 / math.pi)
    functions: dict[str, Callable[[float], float]] = {
        "relu": lambda a: max(a, 0.0),
        "silu": lambda a: a / (1 + math.exp(-a)),
        "gelu": lambda a: 0.5 * a * (1 + math.erf(a / math.sqrt(2))),
        "gelu_new": lambda a: 0.5 * a * (1 + math.tanh(root * (a + 0.044715 * a**3))),
        "quick_gelu": lambda a: a / (1 + math.exp(-1.702 * a)),
    }
    return np.array([functions[kind](float(a)) for a in x])


def normed(shape: Shape, weights: Mapping[str, Array], name: str, x: Array) -> Array:
    """The norm of that name; the final one may be of the other kind."""
    rms = (shape.norm or "").startswith("RMS") or (shape.final_rms and name == "ln_final")
    if shape.norm is None and not rms:
        return x
    if not rms:
        x = x - float(x.sum()) / len(x)
    x = x / math.sqrt(float(x @ x) / len(x) + shape.eps)
    if f"{name}.weight" in weights:
        x = x * weights[f"{name}.weight"]
    return x + weights[f"{name}.bias"] if f"{name}.bias" in weights else x


def logits(shape: Shape, weights: Mapping[str, Array], x: Array) -> Array:
    """The logits at one position."""
    out = affine(weights, "unembed", normed(shape, weights, "ln_final", x))
    return out if shape.logit_cap is None else shape.logit_cap * np.tanh(out / shape.logit_cap)


def affine(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    """W x + b."""
    out = weights[f"{name}.weight"] @ x
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def changed(changes: Sequence[tuple[Node, Change]], node: Node, values: list[Array]) -> list[Array]:
    """The values at all positions after the changes of one node."""
    for target, change in changes:
        if target == node:
            values = [change(position, value) for position, value in enumerate(values)]
    return values
