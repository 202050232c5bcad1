"""Probes of a property, as they are written and printed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.questions.probe import ProbeQuestion
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line
from circuits.probes import Probes, PropertyUse
from circuits.probes.question import Question
from circuits.probes.results import SURE

_WITHOUT = {"majority": "majority by word", "neighbours": "window of words"}
_NOTE = (
    "Shares of words in sentences that no probe was trained on; ±: half of a 95 % interval, sentences taken whole. control: a "
    "label drawn for each word type, which can only be learnt by heart; selective: accuracy less control, on known types. "
    "bits: of the online code, a word. What can be read off a place need not be used there."
)
_MOST = 20
"""Classes that the terminal shows."""
_OF_USE = (
    "Nats by which the loss of the next token rises. erased: what the probe reads is set to its mean at every token; moved: at "
    "words, to another class's mean, kept: to their own class's; random: what probes with random weights read erased."
)


def write(probes: Probes | None, use: PropertyUse | None, folder: Path) -> None:
    """Write the tables and the pictures."""
    for found, name in ((probes, "probes"), (use, "use")):
        if found is not None:
            found.to_dataframe().to_csv(folder / f"{name}.csv", index=False)
            save_figure(found.plot(), folder / f"{name}.png")
    if probes is not None:
        probes.of_classes().to_csv(folder / "classes.csv", index=False)


def without_model(model: str, question: Question, source: str) -> str:
    """What is known before anything is read: how many words of how many classes, and the baselines that need no model."""
    labels = question.labels
    words = int((labels.labels >= 0).sum())
    return _words(
        question.baselines, f"{one_line(model)}: {words:,} words {source}, {labels.name} of {len(labels.classes)} classes"
    )


def _words(baselines: Mapping[str, tuple[float, float]], heading: str) -> str:
    said = [f"{_WITHOUT.get(name, name)} {share:.1%} ± {SURE * error:.1%}" for name, (share, error) in baselines.items()]
    return f"{heading}\nwithout any model: {', '.join(said)}"


def probe_report(probes: Probes, use: PropertyUse | None) -> Report:
    """Every place beside its baselines, and what erasing costs."""
    left = ", ".join(f"{count:,} {why}" for why, count in probes.left_out.items() if count)
    heading = (
        f"{one_line(probes.column)} read off {one_line(probes.model)}: {probes.words:,} words of {probes.sentences:,} "
        f"sentences, {probes.judged:,} judged, {len(probes.classes)} classes"
    )
    parts: list[Part] = [_words(probes.baselines, f"left out: {left or 'nothing'}"), _places(probes)]
    parts += [_hidden(probes)] if probes.hidden else []
    parts += [] if probes.class_f1 is None else [_classes(probes)]
    parts += [filled(_NOTE)]
    parts += [] if use is None else [_use(use), filled(f"{_OF_USE} {use.summary}")]
    return Report(heading=heading, parts=parts, data=_data(probes, use))


def _places(probes: Probes) -> Table:
    rows = []
    for place, row in enumerate(probes.to_dataframe().to_dict("records")):
        known = [_share(row["accuracy"], row["standard_error"]), _share(row["random"], row["random_error"])]
        rows.append(
            (
                f"{row['site']}{' *' if place == probes.best else ''}",
                *known,
                f"{row['macro_f1']:.3f}",
                _share(row["control"]),
                _share(row["selectivity"], row["selectivity_error"], sign="+"),
                "" if math.isnan(row["bits"]) else f"{row['bits']:.3f}",
            )
        )
    uniform = math.log2(len(probes.classes))
    header = ("place", "accuracy", "random weights", "macro F1", "control", "selective", "bits")
    return Table(header, rows, below=f"  * the most accurate; without any probe the labels take {uniform:.3f} bits a word")


def _share(value: float, error: float = math.nan, *, sign: str = "") -> str:
    if math.isnan(value):
        return ""
    return f"{value:{sign}.1%}" + ("" if math.isnan(error) else f" ± {SURE * error:.1%}")


def _hidden(probes: Probes) -> Table:
    """The other probes beside the linear one at their place."""
    at = probes.sites.index(probes.hidden[0].site)
    row = probes.to_dataframe().to_dict("records")[at]
    selective = _share(row["selectivity"], row["selectivity_error"], sign="+")
    rows = [("linear", _share(row["accuracy"], row["standard_error"]), _share(row["control"]), selective)]
    for one in probes.hidden:
        shares = (_share(one.accuracy, one.error), _share(one.control))
        rows.append((one.what, *shares, _share(one.selectivity, one.selectivity_error, sign="+")))
    return Table((f"at {probes.hidden[0].site}", "accuracy", "control", "selective"), rows)


def _classes(probes: Probes) -> Table:
    """The most frequent classes, at the first place and at the best."""
    found, best = probes.of_classes(), probes.sites[probes.best]
    first = next(iter(probes.sites))
    rows = [
        (one_line(row["class"]), f"{row['judged']:,}", *(f"{row[f'f1_{site}']:.3f}" for site in (first, best)))
        for row in found.head(_MOST).to_dict("records")
    ]
    more = len(found) - len(rows)
    below = f"  and {more} rarer ones: classes.csv" if more else ""
    return Table(("class", "judged", f"F1 at {first}", f"at {best}"), rows, below=below)


def _use(use: PropertyUse) -> Table:
    rows = []
    for at, site in enumerate(use.sites):
        needed = [f"{float(use.lost[at, kind, 0]):+.3f}" for kind in range(4)]
        beyond = f"{float(use.beyond[at]):+.3f} ± {SURE * float(use.beyond_errors[at]):.3f}"
        rows.append((f"{site}{' *' if site == use.used else ''}", str(int(use.ranks[at])), *needed, beyond, _others(use, at)))
    header = ("place", "directions", "erased", "moved", "kept", "random", "beyond random", "elsewhere")
    whole = ", ".join(
        f"{name} {float(loss):.2f} nats on {int(count):,} tokens"
        for name, loss, count in zip(("after words that have it", "elsewhere"), use.whole, use.counts, strict=True)
        if int(count)
    )
    return Table(header, rows, title=f"what the model loses ({whole}; {use.sentences} sentences)")


def _others(use: PropertyUse, at: int) -> str:
    """Erased, less random, on all other tokens."""
    lost = float(use.lost[at, 0, 1] - use.lost[at, 3, 1])
    return "" if math.isnan(lost) else f"{lost:+.3f}"


def _data(probes: Probes, use: PropertyUse | None) -> dict[str, Any]:
    data: dict[str, Any] = {"model": probes.model, "property": probes.column, "classes": list(probes.classes)}
    data |= {"pooling": probes.pooling, "words": probes.words, "judged": probes.judged, "sentences": probes.sentences}
    data |= {"left_out": probes.left_out, "seeds": list(probes.seeds), "best": probes.sites[probes.best]}
    shares = {name: {"accuracy": share, "standard_error": error} for name, (share, error) in probes.baselines.items()}
    data |= {"baselines": shares, "places": records(probes.to_dataframe())}
    data |= {"hidden": [vars(one) for one in probes.hidden], "by_class": records(probes.of_classes())}
    used = None if use is None else {"used": use.used, "sentences": use.sentences, "draws": use.draws}
    lost = [] if use is None else records(use.to_dataframe())
    return {**data, "use": None if used is None else {**used, "lost": lost}}


def next_steps(probes: Probes, question: ProbeQuestion, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this, with all that was asked for."""
    again = setting.command("probe", *question.again("relation" if probes.column != "relation" else "depth"))
    return [(again, "another property of the same words"), setting.opening("probes.json")]
