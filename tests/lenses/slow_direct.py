"""Direct logit attribution word by word: one prompt, every node's output as a vector, numpy in float64."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tests.models.reference import Array, Shape, normed, run


def slow_rows(
    shape: Shape, weights: Mapping[str, Array], ids: Sequence[int], answer: int, distractor: int | None
) -> tuple[dict[str, float], dict[str, list[float]], float]:
    """What every node and bias adds, what each head takes from every position, and the logit (difference) before the cap."""
    result, last = run(shape, dict(weights), ids), len(ids) - 1
    final = result.residuals[-1][last]
    column = weights["unembed.weight"][answer] - (0 if distractor is None else weights["unembed.weight"][distractor])

    def onto(vector: Array) -> float:
        """Through the final norm with its scale frozen, without its bias."""
        return float(share(shape, weights, "ln_final", vector, final) @ column)

    rows: dict[str, float] = {}
    sources: dict[str, list[float]] = {}
    place = weights["pos_embed.weight"][last] if shape.positions == "learned" else np.zeros_like(final)
    rows["input"] = onto(result.residuals[0][last] - place)
    if shape.positions == "learned":
        rows["positions"] = onto(place)
    for layer in range(shape.n_layers):
        attention_rows(shape, weights, layer, result, onto, rows, sources)
        if f"blocks.{layer}.mlp.in.weight" in weights:
            mlp_rows(shape, weights, layer, result, onto, rows)
    rest = float(weights.get("ln_final.bias", np.zeros_like(final)) @ column)
    if "unembed.bias" in weights:
        rest += weights["unembed.bias"][answer] - (0 if distractor is None else weights["unembed.bias"][distractor])
    if "unembed.bias" in weights or "ln_final.bias" in weights:
        rows["bias"] = float(rest)
    logits = weights["unembed.weight"] @ normed(shape, weights, "ln_final", final) + weights.get("unembed.bias", 0)
    return rows, sources, float(logits[answer] - (0 if distractor is None else logits[distractor]))


def attention_rows(shape, weights, layer, result, onto, rows, sources) -> None:
    """Heads, their sources and the bias of one layer."""
    name, last = f"blocks.{layer}", len(result.residuals[0]) - 1
    W_O, bias = weights[f"{name}.attn.o.weight"], weights.get(f"{name}.attn.o.bias", np.zeros(len(result.residuals[0][0])))
    outputs = []
    for head in range(shape.n_heads):
        columns = slice(head * shape.d_head, (head + 1) * shape.d_head)
        outputs.append(W_O[:, columns] @ result.z[layer][last][head])
    whole = sum(outputs) + bias

    def written(vector: Array) -> float:
        return onto(share(shape, weights, f"{name}.ln1_post", vector, whole) if shape.post_norms else vector)

    for head, output in enumerate(outputs):
        rows[f"a{layer}.h{head}"] = written(output)
        group = head * shape.n_key_value_heads // shape.n_heads
        taken = slice(group * shape.d_head, (group + 1) * shape.d_head)
        columns = slice(head * shape.d_head, (head + 1) * shape.d_head)
        found = []
        for position, x in enumerate(result.residuals[layer]):
            reads = normed(shape, weights, f"{name}.ln1", x)
            value = (weights[f"{name}.attn.v.weight"] @ reads + weights.get(f"{name}.attn.v.bias", 0))[taken]
            found.append(result.patterns[layer][head][last][position] * written(W_O[:, columns] @ value))
        sources[f"a{layer}.h{head}"] = found
    if f"{name}.attn.o.bias" in weights or (shape.post_norms and f"{name}.ln1_post.bias" in weights):
        post = weights.get(f"{name}.ln1_post.bias", np.zeros_like(bias)) if shape.post_norms else np.zeros_like(bias)
        rows[f"a{layer}.bias"] = written(bias) + onto(post)


def mlp_rows(shape, weights, layer, result, onto, rows) -> None:
    """Neurons and the bias of one layer, and the MLP as their sum."""
    name, last = f"blocks.{layer}", len(result.residuals[0]) - 1
    W_out, bias = weights[f"{name}.mlp.out.weight"], weights.get(f"{name}.mlp.out.bias", np.zeros(len(result.residuals[0][0])))
    active = result.neurons[layer][last]
    whole = W_out @ active + bias

    def written(vector: Array) -> float:
        return onto(share(shape, weights, f"{name}.ln2_post", vector, whole) if shape.post_norms else vector)

    post = weights.get(f"{name}.ln2_post.bias", np.zeros_like(bias)) if shape.post_norms else np.zeros_like(bias)
    for neuron, activation in enumerate(active):
        rows[f"m{layer}.n{neuron}"] = written(activation * W_out[:, neuron])
    rows[f"m{layer}.bias"] = written(bias) + onto(post)
    rows[f"m{layer}"] = written(whole) + onto(post)


def share(shape: Shape, weights: Mapping[str, Array], name: str, part: Array, whole: Array) -> Array:
    """A summand's share in a norm's output, without the norm's bias."""
    rms = (shape.norm or "").startswith("RMS") or (shape.final_rms and name == "ln_final")
    if shape.norm is None and not rms:
        return part
    if not rms:
        part, whole = part - float(np.mean(part)), whole - float(np.mean(whole))
    scale = math.sqrt(float(np.mean(whole**2)) + shape.eps)
    return part / scale * weights.get(f"{name}.weight", np.ones_like(part))
