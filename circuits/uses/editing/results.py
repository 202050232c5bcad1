"""What edits of facts did: the chances of the old and the new answer before and after, and what the model writes."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.statistics import Effect, bootstrap

SCORES = {
    "efficacy": "edited prompts on which the new answer is more likely than the old one",
    "efficacy magnitude": "by how much, in probability",
    "paraphrase": "the same in other words",
    "paraphrase magnitude": "by how much",
    "neighbourhood": "prompts about other subjects on which their own answer stays more likely than the new one",
    "neighbourhood magnitude": "by how much",
    "fluency": "entropy, in bits, of pairs and triples of words that the model writes about the subject",
    "consistency": "likeness of what it writes to reference texts that name the new answer",
}
"""The scores of an edit, as published (Meng et al. 2022), in words."""
PUBLISHED = {"efficacy": 1.0, "paraphrase": 0.964, "neighbourhood": 0.754, "score": 0.892}
"""Of another model: ROME on GPT-2 XL over CounterFact, as the paper gives them."""


@dataclasses.dataclass(frozen=True)
class Odds:
    """The probabilities of two answers to a prompt, before an edit and after it."""

    prompt: str
    old: str
    """The answer that is right: the one before the edit, or a neighbour's own."""
    old_before: float
    new_before: float
    old_after: float
    new_after: float

    def gap(self, *, after: bool) -> float:
        """How much more likely the new answer is than the old one."""
        return self.new_after - self.old_after if after else self.new_before - self.old_before


@dataclasses.dataclass(frozen=True)
class Written:
    """What a model writes about a subject, before an edit and after it."""

    before: str
    after: str
    fluency: tuple[float, float]
    consistency: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class EditOutcome:
    """One fact, edited by itself in one layer, and what that changed."""

    prompt: str
    subject: str
    old: str
    new: str
    relation: str
    layer: int
    loss: float
    steps: int
    stretch: float
    """Length of the change over that of the value."""
    edited: Odds
    paraphrases: tuple[Odds, ...]
    neighbours: tuple[Odds, ...]
    written: Written | None = None
    traced: dict[str, float] | None = None
    """What causal tracing says of this layer at the subject's last token, by kind."""

    def values(self, score: str, *, after: bool) -> float | None:
        """One score of this fact, the mean over its prompts; None where it has no such prompts."""
        if score in ("fluency", "consistency"):
            pair = None if self.written is None else getattr(self.written, score)
            return None if pair is None else pair[after]
        kind, _, magnitude = score.partition(" ")
        asked = {"efficacy": (self.edited,), "paraphrase": self.paraphrases, "neighbourhood": self.neighbours}[kind]
        gaps = [one.gap(after=after) * (-1 if kind == "neighbourhood" else 1) for one in asked]
        return sum(gap if magnitude else float(gap > 0) for gap in gaps) / len(gaps) if gaps else None

    @property
    def success(self) -> float:
        """How much of what the new answer's probability could gain it gained (Hase et al. 2023)."""
        return (self.edited.new_after - self.edited.new_before) / max(1 - self.edited.new_before, 1e-12)


@dataclasses.dataclass(frozen=True, eq=False)
class EditScores(Result, format="circuits-edit-scores"):
    """Facts edited one at a time, each from the model as it was, in one layer or in several."""

    model: str
    weights_sha256: str
    outcomes: tuple[EditOutcome, ...]
    skipped: tuple[tuple[str, str], ...]
    """Prompts that were not edited, each with the reason."""
    prefixes: int
    """Sampled prefixes that keys and values are means over, besides the prompt by itself."""
    tokens: int
    """Of text, whose keys edits leave alone."""
    seed: int

    def __post_init__(self) -> None:
        if len({one.prompt for one in self.outcomes}) * len(self.layers) != len(self.outcomes):
            raise CircuitsError("edits of different facts in different layers: expected every fact in every layer")

    @property
    def layers(self) -> list[int]:
        """The layers in which facts were edited, in order."""
        return sorted({one.layer for one in self.outcomes})

    def at(self, layer: int) -> list[EditOutcome]:
        """The outcomes in one layer."""
        return [one for one in self.outcomes if one.layer == layer]

    @property
    def summary(self) -> str:
        """The scores as published, in the layer with the best one."""
        if not self.outcomes:
            return f"{self.model}: no fact was edited, {len(self.skipped)} left out."
        layer = self.best
        found = {name: self.score(name, layer) for name in ("efficacy", "paraphrase", "neighbourhood")}
        said = ", ".join(f"{name} {one.effect:.0%}" for name, one in found.items() if one is not None)
        whole = self.harmonic(layer)
        facts = counted(len(self.at(layer)), "fact")
        return f"{self.model}: {facts} edited in layer {layer}: {said}{'' if whole is None else f', score {whole:.2f}'}."

    @property
    def best(self) -> int:
        """The layer with the highest harmonic mean, or efficacy where there are no prompts for that."""

        def worth(layer: int) -> float:
            """What layers are ranked by."""
            found, efficacy = self.harmonic(layer), self.score("efficacy", layer)
            return found if found is not None else efficacy.effect if efficacy is not None else 0.0

        return max(self.layers, key=worth)

    def score(self, name: str, layer: int, *, after: bool = True, seed: int = 0) -> Effect | None:
        """One of `SCORES` in a layer, the mean over facts with its bootstrap interval; None where no fact has such prompts."""
        return _mean(self.at(layer), lambda one: one.values(name, after=after), seed)

    def harmonic(self, layer: int, *, after: bool = True) -> float | None:
        """The harmonic mean of efficacy, paraphrase and neighbourhood, the paper's one score; None where one is lacking."""
        found = [self.score(name, layer, after=after) for name in ("efficacy", "paraphrase", "neighbourhood")]
        values = [one.effect for one in found if one is not None]
        if len(values) < len(found):
            return None
        return len(values) / sum(1 / value for value in values) if min(values) > 0 else 0.0

    def success(self, layer: int) -> Effect | None:
        """The share of what the new answer's probability could gain that it gained, over facts."""
        return _mean(self.at(layer), lambda one: one.success, 0)

    def traced(self, kind: str, layer: int) -> Effect | None:
        """What causal tracing says of a layer, over facts."""
        return _mean(self.at(layer), lambda one: None if one.traced is None else one.traced.get(kind), 0)

    @property
    def kinds(self) -> list[str]:
        """The kinds of site that were traced."""
        return list(self.outcomes[0].traced or ()) if self.outcomes else []

    def to_dataframe(self) -> pd.DataFrame:
        """One row a layer and score, before and after."""
        rows = []
        for layer in self.layers:
            for name in SCORES:
                before, after = self.score(name, layer, after=False), self.score(name, layer)
                if before is None or after is None:
                    continue
                row: dict[str, object] = {"layer": layer, "score": name, "facts": len(self.at(layer))}
                for when, one in (("before", before), ("after", after)):
                    row |= {when: one.effect, f"{when}_low": one.low, f"{when}_high": one.high}
                rows.append(row)
            rows.append({"layer": layer, "score": "harmonic mean", "facts": len(self.at(layer)), "after": self.harmonic(layer)})
        return pd.DataFrame(rows)


def _mean(outcomes: Sequence[EditOutcome], of: Callable[[EditOutcome], float | None], seed: int) -> Effect | None:
    values = [value for one in outcomes if (value := of(one)) is not None and math.isfinite(value)]
    return bootstrap(torch.tensor(values, dtype=torch.float64), seed=seed) if values else None


@dataclasses.dataclass(frozen=True, eq=False)
class EditsTogether(Result, format="circuits-edits-together"):
    """Facts edited one by one and all together: what each edit does alone, and what is left of it among the others."""

    model: str
    weights_sha256: str
    layers: tuple[int, ...]
    keep: float
    """Tokens of text that weigh as much as one fact, in the edit of all together."""
    alone: tuple[EditOutcome, ...]
    """Each fact edited by itself, in the last of the layers."""
    together: tuple[EditOutcome, ...]
    """The same facts, edited in one change of all layers."""
    seed: int
    skipped: tuple[tuple[str, str], ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """Prompts that were not edited, each with the reason."""

    def __post_init__(self) -> None:
        if not self.alone or [one.prompt for one in self.alone] != [one.prompt for one in self.together]:
            raise CircuitsError("interference of edits: expected the same facts, edited alone and together")

    @property
    def summary(self) -> str:
        """Efficacy and neighbourhood, alone and together."""
        said = []
        for name in ("efficacy", "neighbourhood"):
            pair = [self.score(name, together=one) for one in (False, True)]
            if pair[0] is not None and pair[1] is not None:
                said.append(f"{name} {pair[0].effect:.0%} alone, {pair[1].effect:.0%} together")
        return f"{self.model}: {counted(len(self.alone), 'fact')} edited: {'; '.join(said)}."

    def score(self, name: str, *, together: bool, after: bool = True) -> Effect | None:
        """One of `SCORES`, over facts edited alone or together."""
        return _mean(self.together if together else self.alone, lambda one: one.values(name, after=after), 0)

    def interference(self, name: str) -> Effect | None:
        """How much a score is lower together than alone, fact by fact."""
        pairs = zip(self.alone, self.together, strict=True)
        differences = [(a.values(name, after=True), b.values(name, after=True)) for a, b in pairs]
        values = [a - b for a, b in differences if a is not None and b is not None]
        return bootstrap(torch.tensor(values, dtype=torch.float64)) if values else None

    def to_dataframe(self) -> pd.DataFrame:
        """One row a score: before, alone, together, and how much is lost together."""
        rows = []
        for name in SCORES:
            before, alone = self.score(name, together=False, after=False), self.score(name, together=False)
            together, lost = self.score(name, together=True), self.interference(name)
            if before is None or alone is None or together is None or lost is None:
                continue
            row: dict[str, object] = {"score": name, "facts": len(self.alone), "before": before.effect}
            for when, one in (("alone", alone), ("together", together), ("lost", lost)):
                row |= {when: one.effect, f"{when}_low": one.low, f"{when}_high": one.high}
            rows.append(row)
        return pd.DataFrame(rows)
