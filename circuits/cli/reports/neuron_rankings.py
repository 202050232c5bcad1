"""Rankings of neurons, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.questions.neurons import NeuronsQuestion
from circuits.cli.questions.probe import words_of
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line
from circuits.probes.ranking.results import SETS, NeuronKnockout, NeuronRankings
from circuits.probes.results import SURE

_NAMED, _COMPARED = 5, 50
_SHOWN = 2
"""Of the sizes that were taken out the largest ones are printed; the table has all."""
_NOTE = (
    "Shares of words in sentences that nothing was fitted to or chosen by; ±: half of a 95 % interval, sentences taken whole. "
    "selective: accuracy less that on labels drawn for each word type, which can only be learnt by heart. What can be read off "
    "neurons need not be used there."
)
_OF_KNOCKOUT = (
    "Nats by which the loss of the token after a word that has the property rises. zero, mean: neurons at 0 or their mean, at "
    "every token; moved: at words alone, to their mean over another class. ±: each by itself."
)


def write(rankings: NeuronRankings | None, knockout: NeuronKnockout | None, folder: Path) -> None:
    """Write the tables and the pictures."""
    for found, name in ((rankings, "rankings"), (knockout, "knockout")):
        if found is not None:
            found.to_dataframe().to_csv(folder / f"{name}.csv", index=False)
            save_figure(found.plot(), folder / f"{name}.png")


def neurons_report(
    rankings: NeuronRankings,
    knockout: NeuronKnockout | None,
    source: str,
    *,
    files: Mapping[str, str],
    steps: Sequence[tuple[str, str]] = (),
) -> Report:
    """The rankings beside each other, and what is lost without their first neurons."""
    left = ", ".join(f"{count:,} {why}" for why, count in rankings.left_out.items() if count)
    heading = (
        f"neurons of {one_line(rankings.model)} that know {one_line(rankings.property)}: {rankings.words:,} words"
        f"{source and ' '}{source}, {rankings.judged:,} judged, {len(rankings.classes)} classes, "
        f"{len(rankings.layers):,} neurons"
    )
    parts: list[Part] = [f"left out: {left or 'nothing'}", _first(rankings), _accuracy(rankings)]
    parts += [] if rankings.beyond_word else [filled(_no_better(rankings))]
    parts += [_shared(rankings)] if len(rankings.ways) > 1 else []
    parts += [filled(_NOTE)]
    parts += [] if knockout is None else [_lost(knockout), filled(f"{_OF_KNOCKOUT} {knockout.summary}")]
    data = {"model": rankings.model, "property": rankings.property, "classes": list(rankings.classes)}
    data |= {"words": rankings.words, "judged": rankings.judged, "left_out": rankings.left_out}
    data |= {"rankings": {way: list(rankings.names(way, 100)) for way in rankings.ways}, "best": list(rankings.best)}
    data |= {"shares": records(rankings.to_dataframe()), "lost": [] if knockout is None else records(knockout.to_dataframe())}
    return Report(heading=heading, parts=parts, data=data, files=dict(files), next=list(steps))


def _first(rankings: NeuronRankings) -> Table:
    rows = [(way, *rankings.names(way, _NAMED)) for way in rankings.ways]
    return Table(("ranking", "first", *[""] * (len(rows[0]) - 2)), rows)


def _accuracy(rankings: NeuronRankings) -> Table:
    sizes, rows = rankings.sizes.tolist(), []
    best_way, best_size = rankings.best
    for place, way in enumerate(rankings.ways):
        cells = []
        for at, size in enumerate(sizes):
            star = " *" if (way, size) == (best_way, best_size) else ""
            cells.append(f"{float(rankings.accuracy[place, at]):.1%}{star}")
        rows.append((way, *cells))
        rows.append(("  selective", *[f"{float(value):+.1%}" for value in rankings.selectivity[place]]))
    half = SURE * float(rankings.errors.max())
    below = (
        f"  ± {half:.1%} at most; {rankings.candidates:,} neurons together {rankings.whole[0]:.1%} ± "
        f"{SURE * rankings.whole[1]:.1%}, majority by word {rankings.majority[0]:.1%} ± {SURE * rankings.majority[1]:.1%}"
    )
    return Table(("accuracy with", *[f"{size}" for size in sizes]), rows, title="how far the first neurons go", below=below)


def _no_better(rankings: NeuronRankings) -> str:
    """That no first neurons tell more than the word alone."""
    return (
        f"No ranking beats its baseline: up to {int(rankings.sizes[-1])} first neurons do not surely tell "
        f"{one_line(rankings.property)} of more words than the word by itself does, {rankings.majority[0]:.1%}. What they know "
        "may be which word it is."
    )


def _shared(rankings: NeuronRankings) -> Table:
    count = min(_COMPARED, len(rankings.layers))
    rows = [
        (way, *[f"{share:.2f}" for share in row])
        for way, row in zip(rankings.ways, rankings.overlap(count).tolist(), strict=True)
    ]
    chance = count / len(rankings.layers)
    title = f"share of their first {count} that rankings have in common (by chance {chance:.2g})"
    return Table(("", *rankings.ways), rows, title=title)


def _lost(knockout: NeuronKnockout) -> Table:
    rows = []
    for w, way in enumerate(knockout.ways):
        for k, kind in enumerate(knockout.kinds):
            for s, size in list(enumerate(knockout.sizes))[-_SHOWN:]:
                lost = [f"{float(knockout.lost[w, kept, k, s, 0]):+.3f}" for kept in range(len(SETS))]
                beyond = f"{float(knockout.beyond[w, k, s]):+.3f} ± {SURE * float(knockout.beyond_errors[w, k, s]):.3f}"
                apart = float(knockout.lost[w, 0, k, s, 1] - knockout.lost[w, 2, k, s, 1])
                rows.append((way, kind, str(size), *lost, beyond, "" if apart != apart else f"{apart:+.3f}"))
    header = ("ranking", "change", "neurons", *SETS, "beyond random", "elsewhere")
    loss = float(knockout.whole[0])
    title = f"what the model loses ({loss:.2f} nats on {int(knockout.counts[0]):,} tokens; {knockout.sentences} sentences)"
    return Table(header, rows, title=title)


def next_steps(rankings: NeuronRankings, question: NeuronsQuestion, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this, with all that was asked for. No neuron is pointed to where none tells more than the word."""
    first = rankings.names(rankings.best[0], 1)[0]
    where = words_of({"--data": question.data, "--property": rankings.property})
    pointed = (setting.command("neuron", first), "what triggers the first neuron, and what it writes")
    if not rankings.beyond_word:
        pointed = (setting.command("probe", *where), "from where on the whole residual stream tells it")
    again = setting.command("neurons", *question.again("relation" if rankings.property != "relation" else "depth"))
    return [pointed, (again, "another property of the same words"), setting.opening("rankings.safetensors")]
