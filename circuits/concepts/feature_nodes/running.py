"""Models run with some features alone, or without some: all others, and what dictionaries leave, as in other runs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.feature_nodes.taps import ERROR, SKIP, Apart, Tap
from circuits.models import Edit, Model, Run
from circuits.models.edits import Compiled
from circuits.models.forward import forward
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

FeatureOutside = Literal["corrupt", "mean"]
"""What nodes outside of a circuit have: their values in the corrupt prompts, or the mean of these."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSet:
    """Nodes of every tap: features by number, and what is no feature by name."""

    features: tuple[Int[Tensor, " _"], ...]
    rests: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, taps: Sequence[Tap], nodes: Sequence[tuple[int, int | str]]) -> "FeatureSet":
        """From places of taps and features."""
        some = [[one for place, one in nodes if place == row] for row in range(len(taps))]
        numbers = (torch.tensor(sorted(one for one in own if not isinstance(one, str)), dtype=torch.long) for own in some)
        return cls(tuple(numbers), tuple(frozenset(one for one in own if isinstance(one, str)) for own in some))

    def __len__(self) -> int:
        return sum(map(len, self.features)) + sum(map(len, self.rests))


Changed = Callable[[int, FeatureSet, Tensor, Tensor], Tensor]
"""From a tap's place among them, some nodes, what it reads and what stands there: what is to stand there."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRuns:
    """The clean prompts run with some nodes as they come out, and all others as in the corrupt prompts."""

    model: Model
    taps: tuple[Tap, ...]
    pairs: PromptPairs
    metric: Metric
    outside: FeatureOutside
    block: int
    own: Run
    others: tuple[Apart, ...]

    @classmethod
    @torch.no_grad()
    def on(
        cls, model: Model, taps: tuple[Tap, ...], pairs: PromptPairs, metric: Metric, outside: FeatureOutside, budget: int
    ) -> "FeatureRuns":
        """Ready to run on some prompts."""
        own, other = plain_run(model, pairs.clean), plain_run(model, pairs.corrupt)
        block = taps[0].block(pairs.clean.ids.numel(), budget, own.residuals[0].element_size())
        return cls(model, taps, pairs, metric, outside, block, own, tuple(tap.apart(other, size=block) for tap in taps))

    def clean(self) -> Float[Tensor, " prompt"]:
        """The metric of the model itself."""
        return self._read(self.own.residuals[-1])

    def only(self, chosen: FeatureSet) -> Float[Tensor, " prompt"]:
        """The metric with these nodes as they come out, and all others as outside."""
        return self._run(chosen, self._kept)

    def without(self, chosen: FeatureSet) -> Float[Tensor, " prompt"]:
        """The metric with all nodes as they come out but these, which are as outside."""
        return self._run(chosen, self._taken)

    def _read(self, x: Tensor) -> Float[Tensor, " prompt"]:
        reading = Reading.of(self.metric, self.pairs)
        return reading.scores(self.model.weights, reading.at_columns(x)[None])[0].double().cpu()

    @torch.no_grad()
    def _run(
        self, chosen: FeatureSet, changed: Callable[[int, FeatureSet, Tensor, Tensor], Tensor]
    ) -> Float[Tensor, " prompt"]:
        first = min(min(tap.reads.layer, tap.writes.layer) for tap in self.taps)
        read: dict[int, Tensor] = {}
        edits: Compiled = {("residual", 0): [(None, Edit("input", self.own.residuals[first]))]}
        for row, tap in enumerate(self.taps):
            own, layer = tap.writes.site

            def change(x: Tensor, row: int = row, tap: Tap = tap) -> Tensor:
                """What stands there instead."""
                y = tap.writes.vectors(x)
                return tap.writes.placed(changed(row, chosen, read.get(row, y), y), x)

            edits.setdefault((own, layer - first), []).append((None, Edit("input", change)))
        for row, tap in enumerate(self.taps):
            if tap.reads != tap.writes:

                def note(x: Tensor, row: int = row, tap: Tap = tap) -> Tensor:
                    """Keep what a transcoder reads."""
                    read[row] = tap.reads.vectors(x)
                    return x

                own, layer = tap.reads.site
                edits.setdefault((own, layer - first), []).append((None, Edit("input", note)))
        weights = self.model.weights.of_layers(first)
        return self._read(forward(weights, self.own.tokens, edits=edits, keep="writes", logits=False).residuals[-1])

    def _kept(self, row: int, chosen: FeatureSet, r: Tensor, y: Tensor) -> Tensor:
        tap, other, rests = self.taps[row], self.others[row], chosen.rests[row]
        features, dictionary = chosen.features[row].to(y.device), self.taps[row].dictionary
        made = self._held(other.y)  # all nodes as outside, before those inside
        if len(features):
            change = dictionary.some(r, features) - self._held(dictionary.some(other.r, features))
            made = made + change @ dictionary.W_dec[features]
        if ERROR in rests:
            made = made + (y - dictionary.given(r, size=self.block)) - self._held(other.error)
        if SKIP in rests:
            made = made + dictionary.skipped(r) - self._held(other.skip)
        assert set(rests) <= set(tap.rests)
        return made

    def _taken(self, row: int, chosen: FeatureSet, r: Tensor, y: Tensor) -> Tensor:
        other, rests = self.others[row], chosen.rests[row]
        features, dictionary = chosen.features[row].to(y.device), self.taps[row].dictionary
        made = y
        if len(features):
            change = self._held(dictionary.some(other.r, features)) - dictionary.some(r, features)
            made = made + change @ dictionary.W_dec[features]
        if ERROR in rests:
            made = made + self._held(other.error) - (y - dictionary.given(r, size=self.block))
        if SKIP in rests:
            made = made + self._held(other.skip) - dictionary.skipped(r)
        return made

    def _held(self, values: Tensor) -> Tensor:
        """What is outside: values of the corrupt prompts as they are, or their mean, by position where all prompts are of one
        length, else over all tokens."""
        if self.outside == "corrupt":
            return values
        mask = self.pairs.corrupt.mask
        if bool(mask.all()):
            return values.mean(dim=0, keepdim=True).expand_as(values)
        return values[mask].mean(dim=0).expand_as(values)
