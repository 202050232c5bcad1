"""What features are attributed to: a metric of the answer, or the pre-activation of another feature."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.feature_nodes.taps import Tap, parsed_node
from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import onward, standing
from circuits.errors import GraphError
from circuits.models import Model, Run
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureTarget:
    """What is asked about: one number a prompt, read off a run's final residual stream, or off where a feature reads."""

    pairs: PromptPairs
    metric: Metric
    dictionary: Dictionary | None = None
    place: FeaturePlace | None = None
    """Where the feature reads; None: the metric is asked about."""
    feature: int = 0
    columns: Int[Tensor, " prompt"] | None = None
    """At which token of each prompt."""

    @property
    def by_prompt(self) -> bool:
        """Whether a prompt's number comes from itself alone."""
        return self.place is not None or self.metric.by_prompt

    def scores(
        self, model: Model, x: Float[Tensor, "prompt position width"], rows: slice = slice(None)
    ) -> Float[Tensor, " prompt"]:
        """The numbers of some prompts, from what stands where they are read."""
        if self.dictionary is not None and self.columns is not None:
            at = self.columns[rows].to(x.device)
            return self.dictionary.pre_activation(x[torch.arange(len(x), device=x.device), at], self.feature)
        reading = Reading.of(self.metric.on(rows), self.pairs[rows])
        return reading.scores(model.weights, reading.at_columns(x)[None])[0]

    def continued(self, model: Model, own: Run, place: FeaturePlace, y: Tensor) -> Float[Tensor, "prompt position width"]:
        """What stands where the numbers are read, in a run that goes on from other vectors at a place."""
        return onward(model.weights, own, place, y, until=self.place)

    def after(self, model: Model, own: Run, place: FeaturePlace, y: Tensor, rows: slice) -> Float[Tensor, " prompt"]:
        """The numbers of a run that goes on from other vectors at a place."""
        return self.scores(model, self.continued(model, own, place, y), rows)

    def slope(
        self, model: Model, own: Run, place: FeaturePlace, y: Tensor, rows: slice
    ) -> Float[Tensor, "prompt position width"]:
        """The gradient of the sum of the numbers by what stands at a place, taken where that is `y`."""
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            (found,) = torch.autograd.grad(self.after(model, own, place, y, rows).sum(), y)
        return found.detach()

    @torch.no_grad()
    def ends(self, model: Model, pairs: PromptPairs, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
        """The numbers of the clean and of the corrupt prompts, float64 on the CPU."""
        runs = [plain_run(model, tokens) for tokens in (pairs.clean, pairs.corrupt)]
        found = [self.scores(model, run.residuals[-1] if self.place is None else standing(run, self.place)) for run in runs]
        return found[0].double().cpu(), found[1].double().cpu()


@torch.no_grad()
def target_of(model: Model, pairs: PromptPairs, metric: Metric, taps: Sequence[Tap], name: str | None) -> FeatureTarget:
    """The metric, or a feature by its name: its pre-activation at the token of each clean prompt where that is largest. Raises
    GraphError for what is no feature of the dictionaries."""
    if name is None:
        return FeatureTarget(pairs, metric)
    row, feature = parsed_node(taps, name)
    if isinstance(feature, str):
        raise GraphError(f"{name} has no pre-activation: name a feature, such as {taps[row].name}.f0")
    tap = taps[row]
    before = tap.dictionary.pre_activation(standing(plain_run(model, pairs.clean), tap.reads), feature)
    columns = before.masked_fill(~pairs.clean.mask, -torch.inf).argmax(dim=1)
    return FeatureTarget(pairs, metric, tap.dictionary, tap.reads, feature, columns)
