"""Neurons and the logical forms over concepts that fit them best."""

import dataclasses
from typing import TYPE_CHECKING, Any

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.graph import Node
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas

Counted = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class NeuronForm:
    """A neuron's best form, on all of the text and chosen on half of it, and what of both may be chance."""

    neuron: str
    form: str
    """Concepts joined by AND, OR and AND NOT."""
    size: int
    """Concepts in it."""
    iou: float
    """Intersection over union of the words where the neuron is active and where the form holds."""
    concept: str
    """The best concept by itself, and its `concept_iou`."""
    concept_iou: float
    active: int
    """Words where the neuron is active; where the form `holds`; and `both`."""
    holds: int
    both: int
    null: float | None
    """The mean IoU of the forms that the same search finds for the neuron's mask moved along the text; None where none was
    moved. `null_high`: the largest; `p_value`: the share of moves that reach the neuron's own IoU, it among them."""
    null_high: float | None
    p_value: float | None
    half_form: str
    """The best form on half of the documents, its IoU there (`half_iou`) and on the others (`held_iou`)."""
    half_iou: float
    held_iou: float | None
    held_null: float | None
    """The mean of the latter over all moves of the mask along these documents; `held_p`: the share of moves that reach it;
    `held_adjusted`: that for all neurons asked about (Benjamini & Hochberg 1995). None where the neuron is not active there."""
    held_p: float | None
    held_adjusted: float | None
    rise: float | None
    """By how much the loss of the next token rises (nats) with the neuron at its mean, with a standard error (`rise_error`);
    None where that was not asked."""
    rise_error: float | None
    words: Counted
    """The words that decide: the most frequent ones where the neuron is active and the form holds; where only the neuron is
    active (`neuron_alone`); where only the form holds (`form_alone`)."""
    neuron_alone: Counted
    form_alone: Counted
    examples: tuple[tuple[str, str], ...] = ()
    """Where both, the neuron alone, and the form alone: which of these, and the text around."""

    def __post_init__(self) -> None:
        Node.parse(self.neuron)
        if not (0 <= self.both <= min(self.active, self.holds) and 0 <= self.iou <= 1 and self.size >= 1):
            raise CircuitsError(f"the form of {self.neuron} does not fit together: {self.both} words are both, IoU {self.iou}")

    @property
    def sure(self) -> bool:
        """Whether the form fits on text that it was not chosen on, by more than chance."""
        return self.held_adjusted is not None and self.held_adjusted < 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronForms(Result, format="circuits-neuron-forms"):
    """Compositional explanations of neurons (Mu & Andreas 2020): for each the logical form over concepts that holds where it is
    active."""

    model: str
    weights_sha256: str
    neurons: tuple[NeuronForm, ...]
    silent: tuple[str, ...]
    """Neurons that are active at no word, or as much at all of them, which have no form."""
    source: str
    """Where the concepts come from."""
    concepts: int
    words: int
    unit: str
    """What is counted: words, each read at its last token, or tokens."""
    rule: str
    """Where a neuron counts as active."""
    length: int
    beam: int
    penalty: float
    moves: int
    """How often each mask was moved and searched anew."""
    left_out: dict[str, int]
    """Concepts that were not searched, by reason."""
    loss: float | None = None
    """The model's own loss on the `loss_tokens` on which neurons were taken out."""
    loss_tokens: int = 0
    agreement: Effect | None = None
    """Spearman's correlation over neurons of the IoU on held-out text with the rise in loss, with its 95 % interval over
    neurons; None for fewer than five."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.neurons:
            raise CircuitsError("forms of no neuron: expected one at least")

    @property
    def sure(self) -> tuple[str, ...]:
        """Neurons whose forms fit by more than chance on held-out text."""
        return tuple(one.neuron for one in self.neurons if one.sure)

    @property
    def ranked(self) -> tuple[NeuronForm, ...]:
        """The neurons, those first that are explained best on held-out text."""
        held = {one.neuron: -1.0 if one.held_iou is None else one.held_iou for one in self.neurons}
        return tuple(sorted(self.neurons, key=lambda one: (not one.sure, -held[one.neuron], -one.iou)))

    @property
    def summary(self) -> str:
        """The best form, or how many neurons have one."""
        best = self.ranked[0]
        said = f"{best.neuron} is {best.form}: IoU {best.iou:.2f}"
        if best.held_iou is not None:
            said += f", {best.held_iou:.2f} on held-out text (by chance {best.held_null:.3f}, p = {best.held_adjusted:.2g})"
        if len(self.neurons) == 1:
            return f"{self.model}: {said}."
        return (
            f"{self.model}: {len(self.sure):,} of {len(self.neurons):,} neurons have a form that fits held-out text by more "
            f"than chance; best {said}."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a neuron; words with their counts as text."""
        import pandas

        rows: list[dict[str, Any]] = []
        for one in self.neurons:
            row = dataclasses.asdict(one)
            del row["examples"]
            for name in ("words", "neuron_alone", "form_alone"):
                row[name] = ", ".join(f"{word} ({count})" for word, count in row[name])
            rows.append(row)
        return pandas.DataFrame(rows)
