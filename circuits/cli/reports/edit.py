"""Edits of facts as they are written and printed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect
from circuits.uses.editing import EditOutcome, EditScores, EditsTogether, Odds, localisation
from circuits.uses.editing.locating import PUBLISHED_R2
from circuits.uses.editing.results import PUBLISHED, SCORES

_SHARES = ("efficacy", "paraphrase", "neighbourhood")
_PROMPTS = 12
"""Prompts of one edit that are printed."""
_WARNING = (
    "Which layer is best is not what causal tracing tells: on another model Hase et al. (2023) found R² of edit success "
    f"{PUBLISHED_R2[0]} by the layer alone and {PUBLISHED_R2[1]} with the tracing effect besides. --layer all measures both on "
    "this model."
)
_PAPER = (
    "GPT-2 XL: another model, ROME on CounterFact, as Meng et al. (2022) give it; the facts here are others, so that the "
    "figures stand beside each other and are not compared."
)
_MEANT = (
    "efficacy, paraphrase: prompts on which the new answer is more likely than the old one; neighbourhood: prompts about "
    "other subjects on which their own answer stays more likely than the new one; magnitudes: by how much, in probability; "
    "fluency: entropy, in bits, of the pairs and triples of words that the model writes; consistency, where there is a "
    "--reference: how like its texts about the new answer that is. In brackets, 95 % bootstrap "
    "intervals over facts."
)


def write(found: EditScores | EditsTogether, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "edit.csv", index=False)
    save_figure(found.plot(), folder / "edit.png")


def line_of(outcome: EditOutcome) -> str:
    """One edited fact in a line, as it comes."""
    odds = outcome.edited
    return (
        f"{outcome.prompt}: {outcome.old.strip()} {odds.old_before:.0%} → {odds.old_after:.0%}, {outcome.new.strip()} "
        f"{odds.new_before:.0%} → {odds.new_after:.0%} (layer {outcome.layer})"
    )


def edit_report(found: EditScores | EditsTogether, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Scores before and after beside each other, and what they are of."""
    if isinstance(found, EditsTogether):
        return _together(found, files, steps)
    model, facts = one_line(found.model), len(found.at(found.layers[0]))
    if facts == 1 and len(found.layers) == 1:
        return _one(found, files, steps)
    layer = found.best
    where = f"layer {layer}" if len(found.layers) == 1 else f"each of {len(found.layers)} layers"
    about = f"{found.prefixes} prefixes; keys left alone: {found.tokens:,} tokens of text; seed {found.seed}"
    parts: list[Part] = [about]
    if len(found.layers) > 1:
        parts += [_by_layer(found), *(filled(f"{localisation(found, kind).summary}.") for kind in found.kinds)]
    title = "" if len(found.layers) == 1 else f"layer {layer}, the best of them"
    parts += [_scores(found, layer, title), filled(_MEANT), filled(_PAPER), filled(_WARNING)]
    parts += _skipped(found)
    heading = f"{model}: {facts} {'fact' if facts == 1 else 'facts'} edited one at a time in {where}"
    return Report(heading=heading, parts=parts, data=_data(found), files=files, next=steps)


def _skipped(found: EditScores | EditsTogether) -> list[Part]:
    """Why facts were left out, where some were."""
    if not found.skipped:
        return []
    prompt, reason = found.skipped[0]
    return [filled(f"first of {len(found.skipped)} left out: {prompt!r}: {reason}")]


def _scores(found: EditScores, layer: int, title: str) -> Table:
    rows = []
    for name in SCORES:
        pair = [found.score(name, layer, after=after) for after in (False, True)]
        if pair[0] is not None and pair[1] is not None:
            paper = f"{PUBLISHED[name]:.1%}" if name in PUBLISHED else ""
            rows.append((name, *(_shown(name, one) for one in pair), paper))
    whole = [found.harmonic(layer, after=after) for after in (False, True)]
    if whole[0] is not None and whole[1] is not None:
        shares = [f"{one:.1%}" for one in whole if one is not None]
        rows.append(("score (harmonic mean)", *shares, f"{PUBLISHED['score']:.1%}"))
    return Table(("score", "before", "after", "GPT-2 XL"), rows, title=title)


def _by_layer(found: EditScores) -> Table:
    kinds = found.kinds
    rows = []
    for layer in found.layers:
        shares = [_shown(name, found.score(name, layer)) for name in _SHARES]
        whole = found.harmonic(layer)
        traced = [_number(found.traced(kind, layer)) for kind in kinds]
        rows.append((str(layer), *shares, "" if whole is None else f"{whole:.1%}", _number(found.success(layer)), *traced))
    return Table(("layer", *_SHARES, "score", "success", *(f"tracing, {kind}" for kind in kinds)), rows)


def _shown(name: str, one: Effect | None) -> str:
    if one is None:
        return ""
    if name in _SHARES:
        return f"{one.effect:.1%} [{one.low:.1%}, {one.high:.1%}]"
    return f"{one.effect:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _number(one: Effect | None) -> str:
    return "" if one is None else f"{one.effect:+.3f}"


def _one(found: EditScores, files: Mapping[str, str], steps: Sequence[tuple[str, str]]) -> Report:
    """One fact, prompt by prompt."""
    one = found.outcomes[0]
    answers = f"{one_line(one.new).strip()} (was {one_line(one.old).strip()})"
    heading = f"{one_line(found.model)}, layer {one.layer}: {one_line(one.prompt)} → {answers}"
    rows = [_odds("edited", one.edited, one.new)]
    rows += [_odds("paraphrase", other, one.new) for other in one.paraphrases[:_PROMPTS]]
    rows += [_odds("neighbour", other, one.new) for other in one.neighbours[:_PROMPTS]]
    said = {name: (one.values(name, after=False), one.values(name, after=True)) for name in SCORES}
    scores = [(name, *(_plain(name, value) for value in pair)) for name, pair in said.items() if pair[0] is not None]
    parts: list[Part] = [
        Table(("prompt", "", "its own answer", "before", "after", f"{one_line(one.new).strip()} before", "after"), rows),
        Table(("score", "before", "after"), scores),
    ]
    if one.written is not None:
        parts.append(filled(f"writes, before: {one.prompt}{one.written.before}"))
        parts.append(filled(f"writes, after: {one.prompt}{one.written.after}"))
    lacking = [what for what, there in (("paraphrases", one.paraphrases), ("neighbours", one.neighbours)) if not there]
    if lacking:
        parts.append(f"no {' and no '.join(lacking)} are known of this prompt: give them with --paraphrase and --neighbour")
    about = f"{one.steps} steps, loss {one.loss:.3f}; the value is changed by {one.stretch:.2f} of its length"
    parts += [f"{about}; {found.prefixes} prefixes; keys left alone: {found.tokens:,} tokens of text", filled(_WARNING)]
    return Report(heading=heading, parts=parts, data=_data(found), files=files, next=steps)


def _plain(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:.1%}" if name in _SHARES else f"{value:.3f}"


def _odds(kind: str, odds: Odds, new: str) -> tuple[str, ...]:
    numbers = (odds.old_before, odds.old_after, odds.new_before, odds.new_after)
    shown = [f"{value:.1%}" for value in numbers]
    return (one_line(odds.prompt)[:70], kind, one_line(odds.old).strip(), *shown)


def _together(found: EditsTogether, files: Mapping[str, str], steps: Sequence[tuple[str, str]]) -> Report:
    rows = []
    for row in found.to_dataframe().to_dict("records"):
        share = row["score"] in _SHARES
        number = (lambda value: f"{value:.1%}") if share else (lambda value: f"{value:.3f}")
        lost = f"{number(row['lost'])} [{number(row['lost_low'])}, {number(row['lost_high'])}]"
        rows.append((row["score"], *(number(row[name]) for name in ("before", "alone", "together")), lost))
    layers = ", ".join(map(str, found.layers))
    heading = (
        f"{one_line(found.model)}: {len(found.alone)} facts edited together in layer{'s' * (len(found.layers) > 1)} {layers}"
    )
    alone = f"alone: each fact by itself in layer {found.layers[-1]} (ROME); together: one change of all layers (MEMIT)"
    parts: list[Part] = [
        f"{alone}; {found.keep:g} tokens of text weigh as much as a fact",
        Table(("score", "before", "alone", "together", "lost together"), rows),
        filled(_MEANT),
        *_skipped(found),
    ]
    data = {"model": found.model, "layers": list(found.layers), "keep": found.keep, "scores": records(found.to_dataframe())}
    data["skipped"] = [{"prompt": prompt, "reason": reason} for prompt, reason in found.skipped]
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _data(found: EditScores) -> dict[str, Any]:
    tracing = {
        kind: {name: value for name, value in vars(localisation(found, kind)).items() if name != "kind"} for kind in found.kinds
    }
    for one in tracing.values():
        one["over_all"] = None if one["over_all"] is None else one["over_all"].as_json()
        for name in ("over_layers", "within_layers", "by_layer", "with_tracing"):
            one[name] = one[name] if math.isfinite(one[name]) else None
    return {
        "model": found.model,
        "layers": found.layers,
        "facts": len(found.at(found.layers[0])),
        "skipped": [{"prompt": prompt, "reason": reason} for prompt, reason in found.skipped],
        "scores": records(found.to_dataframe()),
        "tracing": tracing,
    }
