"""What really happens when features take other values: each by a run of its own, many at a time."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.feature_nodes.taps import Apart, Tap
from circuits.concepts.feature_nodes.targets import FeatureTarget
from circuits.models import Model, Run
from circuits.patching.engine.base import plain_run, some_prompts
from circuits.patching.engine.sites import differing
from circuits.tasks import PromptPairs


@torch.no_grad()
def measure_nodes(
    model: Model,
    taps: Sequence[Tap],
    own: Sequence[Apart],
    other: Sequence[Apart],
    nodes: Sequence[tuple[int, int | str]],
    pairs: PromptPairs,
    goal: FeatureTarget,
    budget: int,
) -> Float[Tensor, "node prompt"]:
    """The metric of the clean prompts where one node takes its value from the corrupt ones, and all that hangs on it follows: a
    feature of a tap, its error, or "all" that stands there."""
    run = plain_run(model, pairs.clean)
    mask = differing(pairs, causal=model.weights.causal)[..., None]
    a_node = mask.numel() * run.residuals[0].element_size() * (12 * model.d_model + 4 * model.d_mlp)
    at_once = max(1, budget // a_node) if goal.by_prompt else 1
    found = torch.zeros(len(nodes), len(pairs), dtype=torch.float64)
    for row, tap in enumerate(taps):
        places = [place for place, (one, _) in enumerate(nodes) if one == row]
        for start in range(0, len(places), at_once):
            some = places[start : start + at_once]
            ys = [own[row].y + mask * changed(tap, own[row], other[row], nodes[place][1]) for place in some]
            found[some] = _after(model, run, tap, ys, goal).double().cpu()
    return found


def changed(tap: Tap, own: Apart, other: Apart, feature: int | str) -> Float[Tensor, "prompt position width"]:
    """By how much what stands at a tap changes when one node takes its other value."""
    if feature == "all":
        return other.y - own.y
    if isinstance(feature, str):
        return other.rest(feature) - own.rest(feature)
    at = torch.tensor([feature], device=own.r.device)
    change = tap.dictionary.some(other.r, at) - tap.dictionary.some(own.r, at)
    return change * tap.dictionary.W_dec[feature]


def _after(model: Model, run: Run, tap: Tap, ys: list[Tensor], goal: FeatureTarget) -> Float[Tensor, "node prompt"]:
    """The numbers of runs that go on from several values at a tap, one behind the other on the axis of prompts."""
    prompts = len(ys[0])
    rows = torch.arange(prompts, device=ys[0].device).repeat(len(ys))
    x = goal.continued(model, some_prompts(run, rows), tap.writes, torch.cat(ys))
    return torch.stack([goal.scores(model, part) for part in x.split(prompts)])
