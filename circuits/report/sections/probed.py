"""Probes as sections: how well a property or trees are read off each place, and what erasing what was read costs."""

import math
from collections.abc import Sequence

from circuits.probes import Probes, PropertyUse, TreeProbes
from circuits.probes.results import KINDS, PARTS
from circuits.report.blocks import AnyBlock, Chart, Paragraphs, Section
from circuits.report.sections.general import table_of
from circuits.report.sections.series import level, line, shown

_BASELINES = {"majority": ("majority by word", "faint"), "neighbours": ("window of words", "4")}
_CHANGES = {"erased": "1", "moved": "0", "kept": "5", "random": "faint"}
_TOKENS = {"needed": "tokens after words that have it", "others": "all other tokens"}


def probes_section(probes: Probes, *, title: str = "Probes of a property") -> Section:
    """The accuracy at each place with its interval, beside random weights, the control task and what needs no model; below the
    bits of the online code."""
    at = _places(probes.sites)
    series = [line("probe", at, probes.accuracy.tolist(), probes.errors.tolist(), colour="0")]
    series += [line("random weights", at, probes.random, probes.random_errors, colour="1")] if probes.random else []
    series.append(line("control task", at, probes.control.tolist(), colour="3"))
    for name, (share, _) in probes.baselines.items():
        words, colour = _BASELINES.get(name, (name, "faint"))
        series.append(level(words, at, share, colour=colour))
    for one in probes.hidden:
        place = [float(probes.sites.index(one.site))]
        series.append(line(one.what, place, [one.accuracy], [one.error], colour="2", look="points"))
    caption = f"{probes.column} read off each place, words of held-out sentences; 95 % intervals"
    blocks: list[AnyBlock] = [Paragraphs([probes.summary]), _chart(caption, shown(*series), probes.sites, "accuracy")]
    bits = shown(line("online code", at, probes.bits.tolist(), colour="0"))
    if bits:
        bits.append(level("without any probe", at, math.log2(len(probes.classes))))
        blocks.append(_chart("Bits a word that it takes to tell the labels", bits, probes.sites, "bits a word"))
    return Section(title, [*blocks, table_of(probes)])


def property_use_section(use: PropertyUse, *, title: str = "What erasing a property costs") -> Section:
    """The rise of the loss at each place for each change, with intervals: after words that have the property, and elsewhere."""
    at, blocks = _places(use.sites), list[AnyBlock]()
    for part, name in enumerate(PARTS):
        lines = [
            line(kind, at, use.lost[:, k, part].tolist(), use.errors[:, k, part].tolist(), colour=_CHANGES[kind])
            for k, kind in enumerate(KINDS)
        ]
        series = shown(*lines)
        if series:
            caption = f"{_TOKENS[name].capitalize()} ({int(use.counts[part]):,}); above 0: what was changed was used"
            blocks.append(_chart(caption, series, use.sites, "rise of the loss, nats", zero=True))
    word, standing = ("not surely used", "bad") if use.used is None else (f"used at {use.used}", "good")
    return Section(title, [Paragraphs([use.summary]), *blocks, table_of(use)], word, standing)  # type: ignore[arg-type]


def tree_probes_section(probes: TreeProbes, *, title: str = "Probes of trees") -> Section:
    """The share of relations that structural probes find, beside random weights and the order of words; then how distances and
    depths are ordered, and how often the root is found."""
    at = _places(probes.sites)
    found = [line("probe", at, probes.uuas.tolist(), probes.errors.tolist(), colour="0")]
    found += [line("random weights", at, probes.random, probes.random_errors, colour="1")] if probes.random else []
    found.append(level("next word", at, probes.chain["uuas"]))
    order = [line("DSpr, distances", at, probes.distance.tolist(), colour="0")]
    order.append(line("NSpr, depths", at, probes.depth.tolist(), colour="3"))
    order.append(line("root found", at, probes.root.tolist(), probes.root_errors.tolist(), colour="2"))
    order.append(level("DSpr, order of words", at, probes.chain["distance"]))
    relations = f"Relations that are found (UUAS), of {probes.relations:,}; 95 % intervals"
    blocks: list[AnyBlock] = [Paragraphs([probes.summary]), _chart(relations, shown(*found), probes.sites, "UUAS")]
    blocks.append(_chart("Order of distances and depths, and the root", shown(*order), probes.sites, "correlation, share"))
    return Section(title, [*blocks, table_of(probes)])


def _places(sites: Sequence[str]) -> list[float]:
    return [float(place) for place in range(len(sites))]


def _chart(caption: str, series: Sequence[dict], sites: Sequence[str], y_name: str, *, zero: bool = False) -> Chart:
    ticks = [(float(place), site) for place, site in enumerate(sites)]
    return Chart(caption, series, "", y_name, lines_at=(0.0,) if zero else (), x_ticks=ticks)
