"""Self-repair: how much of a layer's loss the layers after it make up for (McGrath et al. 2023)."""

import dataclasses
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.lenses.direct.contributions import at_columns
from circuits.lenses.readout import direction
from circuits.models import Edit, Model, Run
from circuits.patching import patches
from circuits.patching.engine.base import Base
from circuits.progress import Progress, silent
from circuits.statistics import Effect, bootstrap
from circuits.tasks import PromptPairs
from circuits.tasks.metric import answer_logits
from circuits.tasks.metrics import logit_difference

Part = Literal["attention", "mlp"]
COLUMNS = ("direct", "total", "compensation")


@dataclasses.dataclass(frozen=True, eq=False)
class SelfRepair(Result, format="circuits-self-repair"):
    """For each layer, what it writes to the logit difference itself, what is lost without it, and what later layers add.

    All in logits, over prompts: `direct` = the clean layer's contribution minus the ablated one's, through the clean final
    norm; `total` = clean minus ablated logit difference; `compensation` = by how much later layers' contributions grow
    when the layer is ablated. Where nothing reads the layer, total = direct.
    """

    part: Part
    kind: str
    direct: Float[Tensor, "layer prompt"]
    total: Float[Tensor, "layer prompt"]
    compensation: Float[Tensor, "layer prompt"]

    def __post_init__(self) -> None:
        shapes = {tuple(getattr(self, name).shape) for name in COLUMNS}
        if len(shapes) > 1 or self.direct.ndim != 2:
            raise CircuitsError(f"direct, total and compensation must have one shape [layer prompt], not {sorted(shapes)}")

    @property
    def summary(self) -> str:
        """The layer whose loss costs most, and what later layers make up for."""
        total, repaired = self.total.mean(dim=1), self.compensation.mean(dim=1)
        layer = int(total.argmax())
        lost = f"most is lost without layer {layer}: {total[layer]:+.3g} logits, {repaired[layer]:+.3g} made up for"
        return f"{self.part} of {counted(len(total), 'layer')} ablated ({self.kind}); {lost} by later layers."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a layer: means over prompts."""
        columns = {name: getattr(self, name).mean(dim=1).tolist() for name in COLUMNS}
        return pd.DataFrame({"layer": range(len(self.direct)), **columns})

    def intervals(self, column: str) -> list[Effect]:
        """Each layer's mean of a column ("direct", "total", "compensation") with its 95 % bootstrap interval over prompts."""
        if column not in COLUMNS:
            raise CircuitsError(f"no column {column!r}: there are {', '.join(COLUMNS)}")
        return [bootstrap(row) for row in getattr(self, column)]


def self_repair(
    model: Model,
    pairs: PromptPairs,
    *,
    part: Part = "attention",
    kind: Literal["zero", "mean", "resample"] = "resample",
    progress: Progress | None = None,
) -> SelfRepair:
    """Ablate each layer's attention or MLP by itself on the clean prompts and compare direct with total effects.

    Raises PromptError for a model without MLPs, or one whose logits are capped, where contributions do not add up.

    Args:
        model: the model whose layers are ablated.
        pairs: clean and corrupt prompts with their answers.
        part: what is ablated: "attention" or "mlp".
        kind: by what: zero, the mean over the corrupt prompts, or their values one by one ("resample").
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if part == "mlp" and not model.d_mlp:
        raise PromptError(f"{model.name} has no MLPs to ablate")
    if model.weights.logit_soft_cap is not None:
        raise PromptError(f"{model.name} caps its logits: contributions of layers do not add up to them")
    report = progress or silent
    rows: dict[str, list[Tensor]] = {"direct": [], "total": [], "compensation": []}
    with torch.no_grad():
        clean, corrupt = model.run(pairs.clean), Base(model, model.run(pairs.corrupt))
        own = contributions(model, clean, pairs, clean)
        before = logit_difference(answer_logits(clean, pairs), pairs)
        for layer in range(model.n_layers):
            report("ablating layers", layer, model.n_layers)
            ablated = model.run(pairs.clean, edits=_without(model, clean, corrupt, layer, part, kind))
            theirs = contributions(model, ablated, pairs, clean)
            here = 2 * layer + (part == "mlp")
            rows["direct"].append(own[here] - theirs[here])
            rows["total"].append(before - logit_difference(answer_logits(ablated, pairs), pairs))
            rows["compensation"].append((theirs - own)[here + 1 :].sum(dim=0))
        report("ablating layers", model.n_layers, model.n_layers)
    return SelfRepair(part, kind, **{name: torch.stack(values).double().cpu() for name, values in rows.items()})


def _without(model: Model, clean: Run, corrupt: Base, layer: int, part: Part, kind: str) -> list[Edit]:
    def value(own: Tensor, other: Tensor) -> Tensor:
        """What stands in for a part's output."""
        if kind == "zero":
            return patches.zero(own)
        return patches.mean(own, other, corrupt.run.tokens.mask) if kind == "mean" else patches.resample(own, other)

    if part == "mlp":
        return [Edit(f"m{layer}", value(corrupt.mlp(layer), corrupt.mlp(layer)))]
    z, other = clean.z[layer], corrupt.run.z[layer]
    return [Edit(f"a{layer}.h{head}", value(z[:, :, head], other[:, :, head])) for head in range(model.n_heads)]


def contributions(model: Model, run: Run, pairs: PromptPairs, clean: Run) -> Float[Tensor, "part prompt"]:
    """What attention and MLP of every layer (in turn) add to the logit difference at the answer, through the final norm
    with the scale of the clean run."""
    base, columns = Base(model, run), pairs.answer_columns
    onto = direction(model, pairs.answers, pairs.distractors) / at_columns(clean.final_scale, columns)
    parts = [part(layer) for layer in range(model.n_layers) for part in (base.attention, base.mlp)]
    return torch.stack([(at_columns(part, columns) * onto).sum(dim=-1) for part in parts])
