"""Edits of weights on a model: put on, taken off, and known to be on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from circuits.errors import ModelError, shown
from circuits.models.weight_edits import WeightEdit, check_edit, edited_weights
from circuits.models.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Edited:
    """The edits that are on a model."""

    unedited: Any
    """The model without them."""
    edits: tuple[WeightEdit, ...]
    """In the order in which they were put on."""
    weights: Weights
    """Those that came of it: a model made of the edited one, with other weights, has no edits that can be taken off."""


def edits_on(model: Any) -> tuple[WeightEdit, ...]:
    """The edits that are on a model."""
    on = model.edited
    return on.edits if on is not None and on.weights is model.weights else ()


def names_on(edits: Sequence[WeightEdit]) -> list[str]:
    """The names by which edits that are on a model are taken off: of those of one name, the later get a number."""
    names = [edit.name for edit in edits]
    return [f"{name} ({before + 1})" if (before := names[:place].count(name)) else name for place, name in enumerate(names)]


def put_on(model: Any, edit: WeightEdit) -> Any:
    """A model with one more edit on. Raises ModelError for an edit that was made for another model, or is on already."""
    on = edits_on(model)
    base = model.edited.unedited if on else model
    if any(edit.sha256 == one.sha256 or (edit.name, edit.prompts) == (one.name, one.prompts) for one in on):
        raise ModelError(f"the edit {shown(edit.name)} is on {base.name} already: take it off before it is put on again")
    if edit.weights_sha256 not in (base.fingerprint, model.fingerprint):
        made = f"was made for {shown(edit.model)} with weights {edit.weights_sha256[:12]}…"
        kind = "" if edit.keys.dtype == model.dtype else f" in {str(model.dtype)[6:]}, it in {str(edit.keys.dtype)[6:]}"
        raise ModelError(f"the edit {shown(edit.name)} {made}; those of {model.name} are {model.fingerprint[:12]}…{kind}")
    check_edit(edit, base.weights, base.name)
    edits, weights = (*on, edit), edited_weights(model.weights, [edit])
    said = edit.name if not on else f"{len(edits)} edits"
    return dataclasses.replace(model, name=f"{base.name} + {said}", weights=weights, edited=Edited(base, edits, weights))


def taken_off(model: Any, names: tuple[str, ...]) -> Any:
    """A model without the edits of these names (none: without any)."""
    on = edits_on(model)
    there = names_on(on)
    unknown = next((name for name in names if name not in there), None)
    if unknown is not None:
        raise ModelError(f"no edit {shown(unknown)} is on {model.name}; on it are {', '.join(map(shown, there)) or 'none'}")
    if not on:
        return model
    found = dataclasses.replace(model.edited.unedited, prepend_bos=model.prepend_bos)
    for name, edit in zip(there, on, strict=True):
        found = put_on(found, edit) if names and name not in names else found
    return found
