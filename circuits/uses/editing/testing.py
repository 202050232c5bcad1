"""Many facts, each edited by itself and scored; and several edited together."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circuits.errors import PromptError
from circuits.files.words import counted
from circuits.models import Model, TokenBatch, WeightEdit
from circuits.models.memory import BUDGET
from circuits.models.weight_edits import edited_weights, require_mlp
from circuits.patching.tracing.causal import noise_level, subject_effects
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards
from circuits.tasks.rewrites import Rewrite
from circuits.uses.editing.editing import EditedFact, Factored, check_edits, edit_fact, edit_facts
from circuits.uses.editing.lookups import Lookup, look_up, sampled_prefixes
from circuits.uses.editing.moments import KeyMoments, KeyText, key_moments
from circuits.uses.editing.results import EditOutcome, EditScores, EditsTogether, Odds, Written
from circuits.uses.editing.scoring import RewritePrompts, WritingTest, odds_of, outcome_of
from circuits.uses.editing.values import ValueSearch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Editing:
    """How facts are edited, the same for each."""

    prefixes: int = 10
    """Sampled prefixes that keys and values are means over."""
    search: ValueSearch = dataclasses.field(default_factory=ValueSearch)
    seed: int = 0
    """Of the prefixes, and of the text where none is given."""
    tokens: int = 8192
    """Of text that the model writes, where none is given, whose keys are left alone."""
    folder: Path | None = None
    """Where second moments of keys are kept."""
    budget: int = BUDGET

    def text(self, model: Model, text: KeyText | TokenBatch | None, progress: Progress | None = None) -> KeyText:
        """The text whose keys are left alone."""
        if isinstance(text, TokenBatch):
            return KeyText.of(text)
        return text or KeyText.written(model, tokens=self.tokens, seed=self.seed, progress=progress)


def default_layer(model: Model) -> int:
    """The layer that is edited where none is named: a sixth of the way up, which is the best of `mini` (docs/measured.md); on
    other models `circuits edit --layers all` tells, not causal tracing."""
    return model.n_layers // 6


class LayerKeys:
    """The keys of layers on ordinary text, ready for edits: the last asked for is held."""

    def __init__(self, model: Model, text: KeyText, editing: Editing, progress: Progress | None = None) -> None:
        self._read = functools.partial(
            key_moments, model, text, folder=editing.folder, budget=editing.budget, progress=progress
        )
        self.model, self.tokens, self._held = model, 0, None

    def at(self, layer: int) -> Factored:
        """Those of one layer."""
        held: Factored | None = self._held
        if held is None or held.layer != layer:
            moments: KeyMoments = next(self._read([layer]))
            self.tokens, held = moments.tokens, Factored.of(self.model, moments)
            self._held = held
        return held


def score_edits(
    model: Model,
    rewrites: Sequence[Rewrite],
    *,
    layers: Sequence[int] | None = None,
    text: KeyText | TokenBatch | None = None,
    editing: Editing | None = None,
    writing: WritingTest | None = None,
    trace: bool = False,
    skipped: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
    found: Found | None = None,
) -> EditScores:
    """Edit facts one at a time, each from the model as it is, and score each as published (Meng et al. 2022).

    Facts that cannot be edited are in `skipped` of the result, each with the reason. Raises PromptError where none is left,
    ModelError for a layer that is not there.

    Args:
        model: the model; it stays as it is.
        rewrites: the facts, with the answers that they are to have.
        layers: in which layers, each by itself (default: `default_layer`).
        text: ordinary text, whose keys are left alone (default: what the model writes).
        editing: how facts are edited.
        writing: what the model is made to write about each subject (default: nothing).
        trace: also trace each fact causally, at the subject's last token.
        skipped: facts that were left out before, with the reasons.
        progress: hears what is being done.
        found: gets the outcome of each fact in each layer.
    """
    editing, give, report = editing or Editing(), heard(found), progress or silent
    layers = [default_layer(model)] if layers is None else list(layers)
    check_edits(model, [(one.prompt, one.subject) for one in rewrites], layers)
    prefixes = sampled_prefixes(model, count=editing.prefixes, seed=editing.seed)
    facts, left = _lookups(model, rewrites, prefixes)
    keys = LayerKeys(model, editing.text(model, text, progress), editing, progress)
    traces = _traces(model, facts, layers, editing, report) if trace else {}
    level, outcomes = f"editing {counted(len(facts), 'fact')}", list[EditOutcome]()

    def edited(place: int) -> dict[str, Any]:
        """One fact in one layer, as plain values."""
        layer, (rewrite, lookup) = layers[place // len(facts)], facts[place % len(facts)]
        edit, value = edit_fact(model, _fact(rewrite), lookup, keys.at(layer), search=editing.search)
        there = outcome_of(model, RewritePrompts.of(model, rewrite), edit, value, writing=writing, budget=editing.budget)
        return {**dataclasses.asdict(there), "tokens": keys.tokens}

    tokens = 0
    for place, plain in enumerate(shards(level, len(layers) * len(facts), edited)):
        report(level, place + 1, len(layers) * len(facts))
        tokens = plain.pop("tokens")
        layer, fact = layers[place // len(facts)], place % len(facts)
        outcomes.append(_outcome(plain, traces.get((fact, layer))))
        give(outcomes[-1])
    about = {"prefixes": len(prefixes), "tokens": tokens, "seed": editing.seed}
    return EditScores(model.name, model.fingerprint, tuple(outcomes), (*skipped, *left), **about)


def edit_one(
    model: Model,
    rewrite: Rewrite,
    *,
    layer: int | None = None,
    text: KeyText | TokenBatch | None = None,
    editing: Editing | None = None,
    writing: WritingTest | None = None,
    progress: Progress | None = None,
) -> tuple[EditScores, WeightEdit]:
    """Edit one fact in one layer, and score that: the scores, and the edit to be saved or put on (`Model.with_edits`).

    Raises PromptError for a fact that cannot be edited, ModelError for a layer that is not there.

    Args:
        model: the model; it stays as it is.
        rewrite: the fact, with the answer that it is to have.
        layer: which layer (default: `default_layer`).
        text: as in `score_edits`.
        editing: as in `score_edits`.
        writing: as in `score_edits`.
        progress: hears what is being done.
    """
    editing, layer = editing or Editing(), default_layer(model) if layer is None else layer
    require_mlp(model.weights, layer, model.name)
    prefixes = sampled_prefixes(model, count=editing.prefixes, seed=editing.seed)
    lookup = look_up(model, rewrite.prompt, subject=rewrite.subject, answer=rewrite.new, prefixes=prefixes)
    asked = RewritePrompts.of(model, rewrite)
    keys = LayerKeys(model, editing.text(model, text, progress), editing, progress)
    edit, value = edit_fact(model, _fact(rewrite), lookup, keys.at(layer), search=editing.search)
    outcome = outcome_of(model, asked, edit, value, writing=writing, budget=editing.budget)
    about = {"prefixes": len(prefixes), "tokens": keys.tokens, "seed": editing.seed}
    return EditScores(model.name, model.fingerprint, (outcome,), (), **about), edit


def score_together(
    model: Model,
    rewrites: Sequence[Rewrite],
    *,
    layers: Sequence[int] | None = None,
    keep: float = 0.0,
    text: KeyText | TokenBatch | None = None,
    editing: Editing | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
    found: Found | None = None,
) -> tuple[EditsTogether, WeightEdit]:
    """Edit facts one at a time and all together, and score both: how much the edits interfere; and the edit of all together.

    Facts that cannot be edited are in `skipped` of the result, each with the reason. Raises as `score_edits` and `edit_facts`.

    Args:
        model: the model; it stays as it is.
        rewrites: the facts, with the answers that they are to have.
        layers: the layers that are edited together (default: `default_layer`); alone, each fact is edited in the last of them.
        keep: tokens of text that weigh as much as one fact (`reading_keys`).
        text: as in `score_edits`.
        editing: as in `score_edits`.
        skipped: as in `score_edits`.
        progress: hears what is being done.
        found: gets the outcome of each fact by itself.
    """
    editing = editing or Editing()
    layers = [default_layer(model)] if layers is None else sorted({*layers})
    check_edits(model, [(one.prompt, one.subject) for one in rewrites], layers, together=True)
    editing_text = editing.text(model, text, progress)
    how: dict[str, Any] = {"text": editing_text, "editing": editing, "progress": progress, "found": found}
    alone = score_edits(model, rewrites, layers=layers[-1:], skipped=skipped, **how)
    edited = [next(one for one in rewrites if one.prompt == there.prompt) for there in alone.outcomes]
    prefixes = sampled_prefixes(model, count=editing.prefixes, seed=editing.seed)
    lookups = [lookup for _, lookup in _lookups(model, edited, prefixes)[0]]
    moments = key_moments(model, editing_text, layers, folder=editing.folder, budget=editing.budget, progress=progress)
    keys = [Factored.of(model, one) for one in moments]
    facts = [_fact(one) for one in edited]
    edit = edit_facts(model, facts, lookups, keys, search=editing.search, keep=keep, progress=progress)
    weights, together = edited_weights(model.weights, [edit]), list[EditOutcome]()
    for rewrite, one in zip(edited, alone.outcomes, strict=True):
        asked = RewritePrompts.of(model, rewrite)
        odds = odds_of(model, asked, weights, budget=editing.budget)
        split = 1 + asked.paraphrases
        together.append(dataclasses.replace(one, edited=odds[0], paraphrases=odds[1:split], neighbours=odds[split:]))
    scores = (tuple(layers), keep, alone.outcomes, tuple(together), editing.seed, alone.skipped)
    return EditsTogether(model.name, model.fingerprint, *scores), edit


def _lookups(
    model: Model, rewrites: Sequence[Rewrite], prefixes: Sequence[str]
) -> tuple[list[tuple[Rewrite, Lookup]], list[tuple[str, str]]]:
    """The facts that can be edited, as rows of tokens, and the others with the reason."""
    facts, left = list[tuple[Rewrite, Lookup]](), list[tuple[str, str]]()
    for rewrite in rewrites:
        try:
            lookup = look_up(model, rewrite.prompt, subject=rewrite.subject, answer=rewrite.new, prefixes=prefixes)
            RewritePrompts.of(model, rewrite)
            facts.append((rewrite, lookup))
        except PromptError as error:
            left.append((rewrite.prompt, str(error)))
    if not facts:
        raise PromptError(f"none of {len(rewrites)} facts can be edited{'' if not left else f'; the last one: {left[-1][1]}'}")
    return facts, left


def _fact(rewrite: Rewrite) -> EditedFact:
    return EditedFact(rewrite.prompt, rewrite.subject, rewrite.old, rewrite.new)


def _traces(
    model: Model, facts: Sequence[tuple[Rewrite, Lookup]], layers: Sequence[int], editing: Editing, report: Progress
) -> dict[tuple[int, int], dict[str, float]]:
    """What causal tracing says of each fact and layer, by kind."""
    window = 10 if model.n_layers >= 20 else max(1, model.n_layers // 2)
    level = noise_level(model, [rewrite.subject for rewrite, _ in facts])

    def traced(place: int) -> dict[str, list[float]]:
        """The effects of one fact by layer."""
        rewrite = facts[place][0]
        how = {"noise": level, "window": window, "seed": editing.seed, "budget": editing.budget}
        effects = subject_effects(model, rewrite.prompt, subject=rewrite.subject, **how)
        return {kind: values.tolist() for kind, values in effects.items()}

    found = dict[tuple[int, int], dict[str, float]]()
    for place, effects in enumerate(shards("tracing", len(facts), traced)):
        report("tracing", place + 1, len(facts))
        found |= {(place, layer): {kind: values[layer] for kind, values in effects.items()} for layer in layers}
    return found


def _outcome(plain: dict[str, Any], traced: dict[str, float] | None) -> EditOutcome:
    """An outcome from plain values."""
    written = plain["written"]
    return EditOutcome(
        **{
            **plain,
            "edited": Odds(**plain["edited"]),
            "paraphrases": tuple(Odds(**one) for one in plain["paraphrases"]),
            "neighbours": tuple(Odds(**one) for one in plain["neighbours"]),
            "written": None if written is None else Written(**written),
            "traced": traced,
        }
    )
