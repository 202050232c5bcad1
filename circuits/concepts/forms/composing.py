"""Say what neurons do as logical forms over concepts, and test what is said."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.concepts.forms.activity import SHARE, Activity, read_activity
from circuits.concepts.forms.beam import BEAM, LENGTH, PENALTY, Best, best_forms
from circuits.concepts.forms.chance import Held, all_moves, benjamini_hochberg, drawn_moves
from circuits.concepts.forms.masks import WRITTEN, ConceptMasks, Lexicon, concept_masks
from circuits.concepts.forms.results import Counted, NeuronForm, NeuronForms
from circuits.concepts.forms.units import Units
from circuits.concepts.forms.use import Rises, loss_rises
from circuits.errors import CircuitsError
from circuits.models import Model
from circuits.models.choosing import Neurons, chosen_neurons
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.runs.runner import shards
from circuits.statistics import FEWEST, Effect, percentile_interval, spearman

FEW = 20
"""Neurons up to which each is told with examples and tested by many moves."""
MOVES, MOVES_OF_MANY = 99, 3
_AT_ONCE = 2**24
"""Bytes of moved masks that are searched in one go."""
_DRAWS = 2000
_WORDS, _EXAMPLES = 8, 3
"""Words and examples of each kind that are kept."""


def compose(
    model: Model,
    units: Units,
    neurons: Neurons | Activity,
    *,
    kinds: Sequence[str] = WRITTEN,
    lexicon: Lexicon | None = None,
    concepts: ConceptMasks | None = None,
    source: str = "",
    least: int = 10,
    share: float = SHARE,
    above: float | None = None,
    length: int = LENGTH,
    beam: int = BEAM,
    penalty: float = PENALTY,
    moves: int | None = None,
    use: int = 32,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> NeuronForms:
    """For each neuron the logical form over concepts that holds where it is active (Mu & Andreas 2020).

    A form is a concept, then further ones joined by AND, OR and AND NOT; the best one has the largest intersection over union
    (IoU) with the words at which the neuron is active, times `penalty` for each concept after the first, by a beam search.
    Whatever is searched for the best looks good: so the same search is done for the neuron's mask moved along the text, and a
    form that is chosen on half of the documents is tried on the others, against all moves of the mask there. Moves keep how a
    mask clumps, which drawing its words anew does not. Of some neurons it is also told by how much the loss rises without them.

    Raises GraphError for neurons that there are not, PromptError for too few concepts, CircuitsError for numbers out of range,
    and where no neuron is ever active.

    Args:
        model: the model whose neurons are read.
        units: the words or tokens of a text: `Units.of_sentences`, `Units.of_rows`.
        neurons: names (`m3.n7`) or layers (`m3`); or where they are active, from `read_activity`.
        kinds: kinds of concepts that are made of the text: `circuits.concepts.forms.masks.KINDS`.
        lexicon: further concepts, with their words.
        concepts: concepts that are masks already, in place of these.
        source: where the concepts come from, in words.
        least: at how many words a concept must hold.
        share: a neuron is active at this share of words, those of its largest activations.
        above: it is active where its activation is above this, instead.
        length: concepts of a form, at most.
        beam: forms that are kept at each length.
        penalty: what each further concept multiplies the IoU by.
        moves: how often each mask is moved and searched anew (default: 99; 3 for more than 20 neurons).
        use: of how many neurons, drawn where there are more, the rise in loss is measured.
        seed: that of all that is drawn.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if min(least, length, beam) < 1 or use < 0 or (moves is not None and moves < 0):
        raise CircuitsError(f"least={least}, length={length}, beam={beam}, moves={moves}, use={use}: expected positive numbers")
    given = concepts or concept_masks(units, kinds=kinds, lexicon=lexicon, least=least)
    reading: dict[str, Any] = {"share": share, "above": above, "budget": budget, "progress": progress}
    kept = neurons if isinstance(neurons, Activity) else read_activity(model, units, chosen_neurons(model, neurons), **reading)
    drawn = (MOVES if len(kept.neurons) <= FEW else MOVES_OF_MANY) if moves is None else moves
    how: dict[str, Any] = {"length": length, "beam": beam, "penalty": penalty, "budget": budget, "progress": progress}
    search = _Searches.of(kept.masks, given.masks, units.halves(seed), drawn, seed, how)
    rises = _rises(model, units, kept, use, seed, budget, progress)
    forms = tuple(_told(row, units, kept, given, search, rises, seed) for row in range(len(kept.neurons)))
    return NeuronForms(
        model=model.name,
        weights_sha256=model.fingerprint,
        neurons=forms,
        silent=kept.silent,
        source=source or ("a lexicon" if lexicon else "the text itself"),
        concepts=len(given.names),
        words=len(units),
        unit=units.kind,
        rule=kept.rule,
        length=length,
        beam=beam,
        penalty=penalty,
        moves=drawn,
        left_out=given.left_out,
        loss=None if rises is None else rises[1].whole,
        loss_tokens=0 if rises is None else rises[1].tokens,
        agreement=_agreement(forms, seed),
        seed=seed,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Searches:
    """All that was searched, for all neurons."""

    best: Best
    single: Best
    half: Best
    held: Held
    adjusted: Float[Tensor, " neuron"]
    null: Float[Tensor, "move neuron"]

    @classmethod
    def of(
        cls,
        active: Bool[Tensor, "neuron unit"],
        concepts: Bool[Tensor, "concept unit"],
        half: Bool[Tensor, " unit"],
        moves: int,
        seed: int,
        how: dict[str, Any],
    ) -> "_Searches":
        """On all of the text, on half of it, and with masks moved."""
        best = best_forms(active, concepts, **how)
        single = best_forms(active, concepts, **{**how, "length": 1})
        chosen = best_forms(active[:, half], concepts[:, half], **how)
        holds = torch.stack([form.holds(concepts[:, ~half]) for form in chosen.forms])
        held = all_moves(active[:, ~half], holds)
        none = active.new_empty(0, len(active)).double()
        at_once = max(1, _AT_ONCE // active.numel())  # few masks by themselves would leave most of each product idle
        parts = torch.tensor(drawn_moves(active.shape[1], moves, seed)).split(at_once) if moves else ()

        def moved(part: int) -> Float[Tensor, "move neuron"]:
            """How well forms fit some moves of all masks."""
            masks = torch.cat([active.roll(move, dims=1) for move in parts[part].tolist()])
            return best_forms(masks, concepts, **how).iou.view(len(parts[part]), -1)

        null = torch.cat([none, *shards("searching forms of moved masks", len(parts), moved)])
        return cls(best, single, chosen, held, benjamini_hochberg(held.p_values), null)


def _rises(
    model: Model, units: Units, activity: Activity, use: int, seed: int, budget: int, progress: Progress | None
) -> tuple[list[int], Rises] | None:
    """Which neurons were taken out, and what that costs."""
    order = torch.randperm(len(activity.neurons), generator=torch.Generator().manual_seed(seed))
    numbers = order[:use].sort().values.tolist()
    if not numbers:
        return None
    return numbers, loss_rises(model, units, activity, numbers, seed=seed, budget=budget, progress=progress)


def _told(
    row: int,
    units: Units,
    activity: Activity,
    concepts: ConceptMasks,
    found: _Searches,
    rises: tuple[list[int], Rises] | None,
    seed: int,
) -> NeuronForm:
    """One neuron's row."""
    form, active, null = found.best.forms[row], activity.masks[row], found.null[:, row]
    holds, own = form.holds(concepts.masks), float(found.best.iou[row])
    place = rises[0].index(row) if rises is not None and row in rises[0] else None
    parts = {"both": active & holds, "neuron alone": active & ~holds, "form alone": holds & ~active}
    counted = [_counted(units, mask) for mask in parts.values()]
    return NeuronForm(
        neuron=str(activity.neurons[row]),
        form=form.named(concepts.names),
        size=len(form),
        iou=own,
        concept=found.single.forms[row].named(concepts.names),
        concept_iou=float(found.single.iou[row]),
        active=int(active.sum()),
        holds=int(found.best.holds[row]),
        both=int(found.best.both[row]),
        null=float(null.mean()) if len(null) else None,
        null_high=float(null.max()) if len(null) else None,
        p_value=float((null >= own).sum() + 1) / (1 + len(null)) if len(null) else None,
        half_form=found.half.forms[row].named(concepts.names),
        half_iou=float(found.half.iou[row]),
        held_iou=_there(found.held.iou[row]),
        held_null=_there(found.held.null[row]),
        held_p=_there(found.held.p_values[row]),
        held_adjusted=_there(found.adjusted[row]),
        rise=None if place is None or rises is None else float(rises[1].rise[place]),
        rise_error=None if place is None or rises is None else float(rises[1].errors[place]),
        words=counted[0],
        neuron_alone=counted[1],
        form_alone=counted[2],
        examples=_examples(units, parts, seed) if len(activity.neurons) <= FEW else (),
    )


def _there(value: Float[Tensor, ""]) -> float | None:
    """A number; None for NaN."""
    return None if bool(value.isnan()) else float(value)


def _counted(units: Units, mask: Bool[Tensor, " unit"]) -> Counted:
    """The most frequent words of a mask; of equally frequent ones the earlier."""
    return tuple(Counter(units.forms[at] for at in mask.nonzero()[:, 0].tolist()).most_common(_WORDS))


def _examples(units: Units, parts: dict[str, Tensor], seed: int) -> tuple[tuple[str, str], ...]:
    """A few places of each kind, drawn."""
    generator, found = torch.Generator().manual_seed(seed), list[tuple[str, str]]()
    for what, mask in parts.items():
        places = mask.nonzero()[:, 0]
        for at in places[torch.randperm(len(places), generator=generator)[:_EXAMPLES]].tolist():
            found.append((what, units.context(at)))
    return tuple(found)


def _agreement(forms: Sequence[NeuronForm], seed: int) -> Effect | None:
    """How the order of neurons by IoU on held-out text agrees with that by the rise in loss; neurons are drawn anew with the
    ranks that they have among all."""
    pairs = [(one.held_iou, one.rise) for one in forms if one.held_iou is not None and one.rise is not None]
    if len(pairs) < FEWEST:
        return None
    both = torch.tensor(pairs, dtype=torch.float64)
    value = spearman(both[:, 0], both[:, 1])
    ranks = torch.tensor(pd.DataFrame(pairs).rank().to_numpy())
    drawn = torch.randint(len(both), (_DRAWS, len(both)), generator=torch.Generator().manual_seed(seed))
    apart = ranks[drawn] - ranks[drawn].mean(dim=1, keepdim=True)
    values = apart.prod(dim=2).sum(dim=1) / apart.square().sum(dim=1).prod(dim=1).sqrt()
    if value != value:
        return None
    low, high = percentile_interval(values[values.isfinite()])
    return Effect(value, float(low), float(high))
