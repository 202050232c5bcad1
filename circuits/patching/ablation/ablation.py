"""Ablation: what a set of nodes is worth, measured by taking it out; and whether later layers make up for the loss."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.models import Edit, Model, TokenBatch
from circuits.models.choosing import Positions
from circuits.models.memory import BUDGET
from circuits.patching import patches
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import Site, find_sites, position_masks, value_at
from circuits.patching.engine.sweep import Sweep
from circuits.patching.nodes import about
from circuits.patching.patches import PatchKind
from circuits.progress import Progress
from circuits.statistics import Effect, bootstrap
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, answer_logits, fitted, widened

NodeSets = str | Sequence[str] | Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Ablation(Result, format="circuits-ablation"):
    """A metric on the clean prompts, whole and with each set of nodes ablated. A change is ablated minus whole, in the
    metric's unit: negative where the nodes were helping a metric that is better when higher."""

    names: tuple[str, ...]
    scores: Float[Tensor, "set prompt"]
    whole: Float[Tensor, " prompt"]
    prompts: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if tuple(self.scores.shape) != (len(self.names), len(self.whole)):
            raise CircuitsError(f"{len(self.names)} sets, {len(self.whole)} prompts, scores {tuple(self.scores.shape)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def summary(self) -> str:
        """The metric of the whole model, and the largest change."""
        pairs = sorted(zip(self.change().tolist(), self.names, strict=True), key=lambda pair: -abs(pair[0]))
        largest = "".join(f"; largest change {change:+.3g} without {name}" for change, name in pairs[:1])
        whole = f"{counted(len(self.whole), 'prompt')}, metric {float(self.whole.mean()):.3g} whole"
        return f"{counted(len(self), 'set')} of nodes on {whole}{largest}."

    def change(self) -> Float[Tensor, " set"]:
        """Mean change over prompts."""
        return (self.scores - self.whole).mean(dim=1)

    def intervals(self) -> list[Effect]:
        """Mean change with its 95 % bootstrap interval over prompts."""
        return [bootstrap(row, seed=self.seed) for row in self.scores - self.whole]

    def to_dataframe(self) -> pd.DataFrame:
        """One row a set: change, low, high (95 %), mean metric ablated and whole, number of prompts."""
        rows = []
        for name, found, scores in zip(self.names, self.intervals(), self.scores, strict=True):
            interval = {"change": found.effect, "low": found.low, "high": found.high}
            means = {"ablated": float(scores.mean()), "whole": float(self.whole.mean()), "prompts": len(self.whole)}
            rows.append({"nodes": name, **interval, **means})
        return pd.DataFrame(rows)


def ablate(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    nodes: NodeSets,
    *,
    kind: PatchKind = "mean",
    positions: Positions = None,
    freeze_patterns: bool = False,
    reference: TokenBatch | None = None,
    noise: float = 1.0,
    steps: int = 100,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Ablation:
    """Take a set of nodes out of the clean runs together, or each of several sets, and measure the metric.

    Raises GraphError and PromptError for names and prompts that do not fit.

    Args:
        model: the model whose nodes are taken out.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        nodes: names as in `find_sites`, or a list of such lists, each a set by itself.
        kind: "zero"; "mean" over `reference`; "resample" (the value on the prompt of `reference` in the same place); "noise";
            "optimal", the constant that keeps the KL divergence from the whole model's answer lowest (Li & Janson 2024;
            heads, MLPs and neurons alone).
        positions: where: everywhere (None), a name of the pairs, or a place in each prompt's own count (negative from its own
            end). Prompts that lack it are left out (`metadata["without_position"]` says how many).
        freeze_patterns: hold every attention pattern as in the clean run, so that only what nodes write changes.
        reference: prompts that means and other values come from (default: the corrupt prompts).
        noise: standard deviation of "noise", in those of the value itself.
        steps: steps of Adam for "optimal".
        seed: that of noise and bootstrap.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    sets = _sets(nodes)
    sites, (label, mask), *more = [find_sites(model, one) for one in sets], *position_masks(pairs, positions).items()
    if more:
        raise PromptError("ablation takes one choice of positions; call it once for each")
    metric = fitted(metric, model, pairs)
    with torch.no_grad():
        base = Base(model, model.run(pairs.clean))
        sweep = Sweep(model, base.run, Reading.of(metric, pairs), budget=budget, freeze_patterns=freeze_patterns)
    if kind == "optimal":
        values = [_optimal(model, base, pairs, one, mask, steps, freeze_patterns) for one in sites]
    else:
        values = _values(model, base, pairs, sites, kind, reference, noise, seed)
    variants: list[Variant] = []
    for one, found in zip(sites, values, strict=True):
        variants.append(tuple(Change(s.kind, s.layer, s.index, v, mask, label=s.name) for s, v in zip(one, found, strict=True)))
    scores = sweep.evaluate(variants, progress=progress, what="ablating")
    names = tuple("+".join(one) + (f"@{label}" if label else "") for one in sets)
    details = about(model, metric, kind=kind, freeze_patterns=freeze_patterns)
    whole = sweep.base_scores().double().cpu()
    kept = mask.any(dim=1).cpu()
    if not bool(kept.all()):
        details["without_position"] = int((~kept).sum())
    labels = tuple(label for label, there in zip(pairs.labels, kept.tolist(), strict=False) if there)
    return Ablation(names, scores.double().cpu()[:, kept], whole[kept], labels, details, seed)


def _sets(nodes: NodeSets) -> list[list[str]]:
    if isinstance(nodes, str):
        return [[nodes]]
    if not nodes:
        raise CircuitsError("there is nothing to ablate: the list of nodes is empty")
    if all(isinstance(name, str) for name in nodes):
        return [[str(name) for name in nodes]]
    return [[one] if isinstance(one, str) else [str(name) for name in one] for one in nodes]


def _values(
    model: Model,
    base: Base,
    pairs: PromptPairs,
    sites: list[list[Site]],
    kind: PatchKind,
    reference: TokenBatch | None,
    scale: float,
    seed: int,
) -> list[list[Tensor]]:
    """What is put in place, a value a site."""
    other = base
    if kind in ("mean", "resample"):
        source = pairs.corrupt if reference is None else reference
        with torch.no_grad():
            other = Base(model, model.run(source))
    generator = torch.Generator().manual_seed(seed)

    def value(site: Site) -> Tensor:
        """What stands in for a site's value."""
        own, theirs = value_at(base, site), value_at(other, site)
        if site.kind == "pattern" and kind in ("mean", "noise"):
            raise CircuitsError(f"{site.name} cannot be set to {kind}: a pattern must stay one; use zero or resample")
        if kind == "zero":
            return patches.zero(own)
        if kind == "resample":
            return patches.resample(own, theirs)
        if kind == "mean":
            return patches.mean(own, theirs, other.run.tokens.mask)
        if kind == "noise":
            return patches.noise(own, scale * float(own[pairs.clean.mask].std()), generator)
        raise CircuitsError(f"unknown kind of ablation {kind!r}: expected zero, mean, resample, noise or optimal")

    return [[value(site) for site in one] for one in sites]


def _optimal(
    model: Model, base: Base, pairs: PromptPairs, sites: list[Site], mask: Tensor, steps: int, freeze: bool
) -> list[Tensor]:
    """Constants that keep the answer's distribution nearest to the whole model's, from the mean on."""
    wrong = [site.name for site in sites if site.kind not in ("head", "mlp", "neuron")]
    if wrong:
        raise CircuitsError(f"the optimal constant is found for heads, MLPs and neurons, not for {wrong[0]}")
    starts = [patches.mean(value_at(base, site), value_at(base, site), mask)[0].mean(dim=0) for site in sites]
    constants = [start.detach().clone().requires_grad_() for start in starts]
    patterns = [base.run.pattern(layer) for layer in range(model.n_layers)] if freeze else None
    target = widened(answer_logits(base.run, pairs)).log_softmax(dim=-1).detach()
    with torch.enable_grad():
        optimiser = torch.optim.Adam(constants, lr=0.05 * max(1e-3, *(float(value_at(base, s).std()) for s in sites)))
        best, kept = float("inf"), [start.clone() for start in starts]
        for _ in range(steps):
            edits = [Edit(site.name, constant, mask) for site, constant in zip(sites, constants, strict=True)]
            logits = widened(answer_logits(model.run(pairs.clean, edits=edits, patterns=patterns, keep="logits"), pairs))
            loss = torch.nn.functional.kl_div(logits.log_softmax(dim=-1), target, log_target=True, reduction="batchmean")
            if loss.item() < best:
                best, kept = loss.item(), [constant.detach().clone() for constant in constants]
            optimiser.zero_grad()
            loss.backward(inputs=constants)
            optimiser.step()
    return [patches.constant(value_at(base, site), constant) for site, constant in zip(sites, kept, strict=True)]
