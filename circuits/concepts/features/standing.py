"""What stands at a dictionary's place in a run, and how a run goes on from something else there."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.models import Edit, Model, Run
from circuits.models.edits import Site
from circuits.models.forward import forward
from circuits.models.layers import attention_output, mlp_output, normalise
from circuits.models.weights import Weights


def standing(run: Run, place: FeaturePlace) -> Float[Tensor, "prompt position width"]:
    """What stands at a place of a run that kept its factors."""
    layer = place.layer
    if place.kind == "residual":
        return run.residuals[layer]
    block = run.weights.blocks[layer]
    match place.kind:
        case "heads":
            return run.z[layer].flatten(-2)
        case "attention":
            return attention_output(run.z[layer], block.attention, block.attention_post_norm)
        case "middle":
            return run.middles[layer]
        case "reading" | "unit":
            return normalise(run.residuals[layer] if run.weights.parallel else run.middles[layer], block.mlp_norm)
        case "mlp":
            assert block.mlp is not None
            return mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)


def onward(
    weights: Weights,
    run: Run,
    place: FeaturePlace,
    y: Float[Tensor, "prompt position width"],
    *,
    until: FeaturePlace | None = None,
) -> Float[Tensor, "prompt position width_there"]:
    """A run goes on from other vectors at a place, all before it as it was: what then stands at a later place (default: the
    final residual stream)."""
    layer, start, edits = place.layer, y, dict[Site, list[tuple[int | None, Edit]]]()
    if place.kind == "mlp":  # nothing of its own layer comes after it
        layer, start = layer + 1, run.middles[layer] + y
    elif place.kind != "residual":
        start = run.residuals[layer]
        edits[place.site[0], 0] = [(None, Edit("input", place.placed(y, run.z[layer]) if place.kind == "heads" else y))]
    until = until or FeaturePlace("residual", len(weights.blocks))
    if until == FeaturePlace("residual", layer):
        return start
    seen: list[Tensor] = []
    edits.setdefault(("residual", 0), []).append((None, Edit("input", start)))
    edits.setdefault((until.site[0], until.layer - layer), []).append((None, Edit("input", _noted(seen))))
    end = until.layer if until.kind == "residual" else until.layer + 1
    forward(weights.of_layers(layer, end), run.tokens, edits=edits, keep="logits", logits=False)
    return until.vectors(seen[0])


def _noted(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """An edit that leaves a value as it is, and keeps it."""

    def note(x: Tensor) -> Tensor:
        """Keep the value."""
        seen.append(x)
        return x

    return note


def written_rows(
    model: Model, dictionary: Dictionary, features: Sequence[int] | None = None
) -> Float[Tensor, "feature d_model"]:
    """What a unit of each feature adds to the residual stream; of features of heads, through their output weights."""
    rows = dictionary.W_dec if features is None else dictionary.W_dec[torch.tensor(features, device=dictionary.W_dec.device)]
    place = FeaturePlace.parse(dictionary.site)
    return rows @ model.weights.blocks[place.layer].attention.W_O if place.kind == "heads" else rows
