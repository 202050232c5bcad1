"""Neurons that know a property as sections: how far the first ones of each ranking go, and what is lost without them."""

from circuits.probes import NeuronKnockout, NeuronRankings
from circuits.probes.ranking.results import SETS
from circuits.report.blocks import AnyBlock, Chart, Grid, Heatmap, Paragraphs, Section
from circuits.report.sections.general import table_of
from circuits.report.sections.series import level, line, shown

_WAYS = {"lca": "0", "gaussian": "1", "probeless": "2", "raw": "4", "agreement": "3"}
_SETS = {"top": "1", "bottom": "5", "random": "faint"}
_KINDS = {"zero": "set to 0", "mean": "at their mean", "moved": "at another class's mean"}
_NAMED, _COMPARED = 10, 50


def rankings_section(rankings: NeuronRankings, *, title: str = "Neurons ranked") -> Section:
    """The accuracy and the selectivity of a probe on the first neurons of each ranking, the first neurons by name, and what
    rankings have in common."""
    sizes = [float(size) for size in rankings.sizes.tolist()]
    told, selective = list[dict](), list[dict]()
    for place, way in enumerate(rankings.ways):
        colour = _WAYS.get(way, "faint")
        told.append(line(way, sizes, rankings.accuracy[place].tolist(), rankings.errors[place].tolist(), colour=colour))
        errors = rankings.selectivity_errors[place].tolist()
        selective.append(line(way, sizes, rankings.selectivity[place].tolist(), errors, colour=colour))
    told.append(level(f"{rankings.candidates:,} neurons", sizes, rankings.whole[0], colour="good"))
    told.append(level("the word alone", sizes, rankings.majority[0]))
    blocks: list[AnyBlock] = [Paragraphs([rankings.summary])]
    if not rankings.beyond_word:
        blocks.append(Paragraphs(["No first neurons surely tell more than the word alone."], tone="warning"))
    caption = f"{rankings.property} told by a probe on the first neurons; 95 % intervals"
    blocks.append(Chart(caption, shown(*told), "neurons", "accuracy", logarithmic=True))
    axes = {"x_name": "neurons", "y_name": "accuracy less control", "logarithmic": True, "lines_at": (0.0,)}
    blocks.append(Chart("Selectivity of the same probes", shown(*selective), **axes))
    names = [rankings.names(way, _NAMED) for way in rankings.ways]
    header = ("ranking", *(str(place + 1) for place in range(len(names[0]))))
    blocks.append(Grid(header, [(way, *row) for way, row in zip(rankings.ways, names, strict=True)], "The first neurons"))
    if len(rankings.ways) > 1:
        count = min(_COMPARED, len(rankings.layers))
        chance = f"by chance {count / len(rankings.layers):.2g}"
        caption = f"Share of their first {count} that rankings have in common ({chance})"
        blocks.append(Heatmap(rankings.ways, rankings.ways, rankings.overlap(count).tolist(), caption))
    return Section(title, [*blocks, table_of(rankings)])


def knockout_section(knockout: NeuronKnockout, *, title: str = "What is lost without neurons") -> Section:
    """The rise of the loss without the first, the last and random neurons, by ranking and by what takes their place."""
    sizes, blocks = [float(size) for size in knockout.sizes], list[AnyBlock]([Paragraphs([knockout.summary])])
    for w, way in enumerate(knockout.ways):
        for k, kind in enumerate(knockout.kinds):
            lost, errors = (side[w, :, k, :, 0].tolist() for side in (knockout.lost, knockout.errors))
            series = shown(*(line(kept, sizes, lost[s], errors[s], colour=_SETS[kept]) for s, kept in enumerate(SETS)))
            if series:
                rise = "rise of the loss, nats"
                caption = f"By {way}, {_KINDS.get(kind, kind)}: tokens after words that have it"
                blocks.append(Chart(caption, series, "neurons", rise, logarithmic=True, lines_at=(0.0,)))
    return Section(title, [*blocks, table_of(knockout)])
