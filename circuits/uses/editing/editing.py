"""Edits of facts: one by a rank-one change (ROME), several together by their closed form (MEMIT)."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, ModelError, PromptError, shown
from circuits.models import Model, WeightEdit
from circuits.models.weight_edits import edited_weights, require_mlp
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.uses.editing.endings import Endings
from circuits.uses.editing.lookups import Lookup
from circuits.uses.editing.moments import KeyMoments
from circuits.uses.editing.updates import reading_keys
from circuits.uses.editing.values import NewValue, ValueSearch, search_value


@dataclasses.dataclass(frozen=True)
class EditedFact:
    """What an edit is about, in words: the prompt, its subject, what the model said and what it is to say."""

    prompt: str
    subject: str
    old: str
    new: str


@dataclasses.dataclass(frozen=True, eq=False)
class Factored:
    """The keys of a layer on ordinary text, ready for edits."""

    layer: int
    factor: Float[Tensor, "d_mlp d_mlp"]

    @classmethod
    def of(cls, model: Model, moments: KeyMoments) -> "Factored":
        """Those of a model. Raises ModelError for moments of another one."""
        if moments.weights_sha256 != model.fingerprint:
            raise ModelError(
                f"the keys' second moment is that of {shown(moments.model)} ({moments.weights_sha256[:12]}…), not of "
                f"{model.name} ({model.fingerprint[:12]}…)"
            )
        return cls(moments.layer, moments.factor())


def edit_fact(
    model: Model,
    fact: EditedFact,
    lookup: Lookup,
    keys: Factored,
    *,
    search: ValueSearch | None = None,
) -> tuple[WeightEdit, NewValue]:
    """The rank-one change of one layer's output weights after which another answer follows (ROME), and how its value was found.

    Key and value are means over the lookup's prompts throughout: `W_out` reads exactly value + change at that key afterwards.
    Raises as `search_value`.

    Args:
        model: what is edited; it stays as it was (`Model.with_edits` puts the edit on).
        fact: what it is about, in words.
        lookup: the fact as rows of tokens.
        keys: the keys of the layer that is edited.
        search: how the value is searched for.
    """
    found = search_value(model, lookup, keys.layer, search)
    return _edit(model, "ROME", [fact], [keys.layer], [reading_keys(keys.factor, found.key[None])], [found.change[None]]), found


def edit_facts(
    model: Model,
    facts: Sequence[EditedFact],
    lookups: Sequence[Lookup],
    keys: Sequence[Factored],
    *,
    search: ValueSearch | None = None,
    keep: float = 0.0,
    progress: Progress | None = None,
) -> WeightEdit:
    """One change of one or several layers' output weights for several facts together (MEMIT): values are searched for in the
    last layer; each layer, from the first on, writes its share of what the state behind the last one still lacks.

    Raises ModelError where several layers are edited and their MLPs end in a norm, behind which shares do not add up;
    PromptError for two facts with one key; and as `search_value`.

    Args:
        model: what is edited; it stays as it was.
        facts: what they are about, in words.
        lookups: the facts as rows of tokens.
        keys: the keys of the layers that are edited.
        search: how values are searched for.
        keep: as in `reading_keys`.
        progress: hears how many values have been found.
    """
    if len(facts) != len(lookups):
        raise CircuitsError(f"{len(facts)} facts with {len(lookups)} lookups: expected one for each")
    check_edits(model, [(one.prompt, one.subject) for one in facts], [one.layer for one in keys], together=True)
    ordered, report = sorted(keys, key=lambda one: one.layer), progress or silent
    last, wanted = ordered[-1].layer, list[Tensor]()
    for place, change in enumerate(
        shards("searching for values", len(lookups), lambda place: search_value(model, lookups[place], last, search).change)
    ):
        report("searching for values", place + 1, len(lookups))
        wanted.append(change.to(model.device))
    asked = [_state(model, lookup, last) + change for lookup, change in zip(lookups, wanted, strict=True)]
    rows, changes, edited = list[Tensor](), list[Tensor](), model
    for place, one in enumerate(ordered):
        there = torch.stack([_key(edited, lookup, one.layer) for lookup in lookups])
        lacking = torch.stack([goal - _state(edited, lookup, last) for goal, lookup in zip(asked, lookups, strict=True)])
        lacking = torch.stack(wanted) if len(ordered) == 1 else lacking / (len(ordered) - place)
        rows.append(reading_keys(one.factor, there, keep=keep))
        changes.append(lacking)
        so_far = _edit(model, "MEMIT", facts, [layer.layer for layer in ordered[: place + 1]], rows, changes)
        edited = dataclasses.replace(model, weights=edited_weights(model.weights, [so_far]))
    return so_far


def check_edits(model: Model, facts: Sequence[tuple[str, str]], layers: Sequence[int], *, together: bool = False) -> None:
    """Raise, before anything is computed, where facts cannot be edited in layers.

    Raises CircuitsError without facts or layers and for a layer that is named twice, PromptError for two facts of one prompt,
    ModelError for a layer without an MLP that can be edited, and where MLPs of several layers end in a norm.

    Args:
        model: what is edited.
        facts: prompt and subject of each.
        layers: the layers that are edited.
        together: whether all of them are, by one change.
    """
    if not facts or not layers or len({*layers}) != len(layers):
        raise CircuitsError(f"{len(facts)} facts in layers {list(layers)}: expected some, each layer once")
    for layer in layers:
        require_mlp(model.weights, layer, model.name)
    if together and len(layers) > 1 and any(model.weights.blocks[layer].mlp_post_norm is not None for layer in layers):
        raise ModelError(
            f"the MLPs of {model.name} end in a norm, behind which the shares of layers do not add up: edit one layer"
        )
    twice = next((one for one, count in Counter(facts).items() if count > 1), None)
    if twice is not None:
        raise PromptError(f"the prompt {shown(twice[0])} is edited twice: leave one of them out")


def _state(model: Model, lookup: Lookup, layer: int) -> Float[Tensor, " d_model"]:
    """The residual stream behind a layer at the subject's last token, the mean over the prompts of all prefixes."""
    states = Endings.of(model, layer, *lookup.batch()).states()[: len(lookup.rows)]
    return states.to(torch.promote_types(states.dtype, torch.float32)).mean(dim=0)


def _key(model: Model, lookup: Lookup, layer: int) -> Float[Tensor, " d_mlp"]:
    keys = Endings.of(model, layer, *lookup.batch()).keys()[: len(lookup.rows)]
    return keys.to(torch.promote_types(keys.dtype, torch.float32)).mean(dim=0)


def _edit(
    model: Model,
    method: str,
    facts: Sequence[EditedFact],
    layers: Sequence[int],
    keys: Sequence[Tensor],
    changes: Sequence[Tensor],
) -> WeightEdit:
    wide = torch.promote_types(model.dtype, torch.float32)
    return WeightEdit(
        model.name,
        model.fingerprint,
        method,
        tuple(layers),
        tuple(fact.prompt for fact in facts),
        tuple(fact.subject for fact in facts),
        tuple(fact.old for fact in facts),
        tuple(fact.new for fact in facts),
        torch.stack([key.to(wide).cpu() for key in keys]),
        torch.stack([change.to(wide).cpu() for change in changes]),
    )
