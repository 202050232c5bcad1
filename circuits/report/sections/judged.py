"""A verdict and a curve as a section: faithful, complete, minimal, better than chance."""

from collections.abc import Mapping

from circuits.report.blocks import AnyBlock, Chart, Facts, Grid, Paragraphs, Section, Standing
from circuits.search.judging.curves import Curve
from circuits.search.judging.verdict import HALF, NOTHING, SIGNIFICANT, UNNEEDED, Verdict
from circuits.statistics import FEWEST, Effect

_STANDING: dict[str, Standing] = {"proven": "good", "partial": "part", "unproven": "bad"}
_MOST_BARS = 40
"""Nodes of which a bar is drawn; the table has all."""
_GAP = 0.2
"""A gap between circuit and model, in shares of the behaviour, from which on the circuit is called incomplete."""
_DROP = 0.2
"""How much less the circuit may keep on held-out prompts than on those that it was searched on."""


def verdict_section(verdict: Verdict | None, curve: Curve | None = None, *, title: str = "Verdict") -> Section:
    """What speaks for and against a circuit. `verdict`: None where it was not judged, which the section says; `curve`: what
    more and fewer of the strongest edges keep."""
    if verdict is None:
        said = "The circuit was not judged: circuits evaluate says how much of the behaviour it keeps by itself."
        blocks: list[AnyBlock] = [Paragraphs([said], tone="warning")]
        return Section(title, [*blocks, *([] if curve is None else [_curve_chart(curve, None)])], "not judged", "bad")
    blocks = [Paragraphs([verdict.summary])]
    failing = _failing(verdict)
    if failing:
        blocks.append(Paragraphs(failing, tone="warning"))
    blocks.append(Facts(_figures(verdict)))
    blocks.append(_faithfulness_chart(verdict))
    if curve is not None:
        blocks.append(_curve_chart(curve, verdict))
    blocks += [_completeness_chart(verdict)] if verdict.completeness else []
    blocks += [_minimality_chart(verdict)] if verdict.minimality else []
    blocks += [_completeness_grid(verdict)] if verdict.completeness else []
    blocks += [_minimality_grid(verdict)] if verdict.minimality else []
    return Section(title, blocks, verdict.standing, _STANDING[verdict.standing])


def _failing(verdict: Verdict) -> list[str]:
    """A line for each thing that speaks against the circuit."""
    one, lines = verdict.faithfulness, []
    if verdict.evidence < FEWEST:
        lines.append(f"Fails: only {verdict.evidence} independent prompts; it takes {FEWEST} to prove something.")
    if verdict.p_value is None:
        lines.append("Fails: not held against random circuits, so chance may do as well.")
    elif verdict.p_value > SIGNIFICANT:
        lines.append(f"Fails: chance does as well (p = {verdict.p_value:.3g}, more than {SIGNIFICANT}).")
    if one.low <= 0 or one.effect < NOTHING:
        lines.append("Fails: what it keeps may be nothing.")
    elif one.low < HALF:
        lines.append(f"Fails: it may keep less than half of the behaviour (interval from {one.low:.2f}).")
    if verdict.searched_on is not None and verdict.searched_on.effect - one.effect > _DROP:
        lines.append("Fails: it keeps much less on held-out prompts than on those that it was searched on.")
    if verdict.incompleteness is not None and verdict.incompleteness > _GAP:
        lines.append(f"Fails: circuit and model part by {verdict.incompleteness:.2f} when nodes are taken out of both.")
    return lines


def _figures(verdict: Verdict) -> list[tuple[str, str]]:
    """The figures, each with its interval."""
    rows = [("faithfulness, held out", _interval(verdict.faithfulness))]
    if verdict.searched_on is not None:
        rows.append(("on prompts searched on", _interval(verdict.searched_on)))
    rows.append(("prompts", f"{verdict.prompts} held out, {verdict.evidence} independent"))
    if verdict.p_value is not None:
        largest = f", which keep at most {max(verdict.null):.3f}" if verdict.null else ""
        rows.append(("against chance", f"p = {verdict.p_value:.3g} by {len(verdict.null)} random circuits{largest}"))
    if verdict.incompleteness is not None:
        some = verdict.metadata.get("completeness_prompts", verdict.prompts)
        where = "" if some == verdict.prompts else f" on {some} of the prompts"
        rows.append(("completeness", f"largest gap to the model {verdict.incompleteness:.3f}{where}"))
    if verdict.minimality:
        spare = verdict.unneeded()
        few = f": {', '.join(spare[:12])}{', …' if len(spare) > 12 else ''}" if spare else ""
        rows.append(("minimality", f"{len(spare)} of {_asked(verdict)} not needed{few}"))
    return rows


def _interval(one: Effect) -> str:
    return f"{one.effect:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _faithfulness_chart(verdict: Verdict) -> Chart:
    one, at = verdict.faithfulness, 0
    holds = "0" if verdict.standing != "unproven" else "bad"
    ticks, series = [(0.0, "held out")], [_point("circuit, held out", 0.0, one, holds)]
    if verdict.searched_on is not None:
        at += 1
        ticks.append((float(at), "searched on"))
        series.append(_point("circuit, searched on", float(at), verdict.searched_on, "3"))
    if verdict.null:
        at += 1
        ticks.append((float(at), "random circuits"))
        spread = [at + 0.5 * ((place * 0.618) % 1 - 0.5) for place in range(len(verdict.null))]
        few = verdict.metadata.get("random_prompts")
        on = f", on {few} of the prompts" if isinstance(few, int) else ""
        null = list(verdict.null)
        names = ["random circuit"] * len(null)
        name = f"{len(null)} random circuits of as many edges{on}"
        series.append({"name": name, "look": "points", "x": spread, "y": null, "names": names, "colour": "faint"})
    name = "faithfulness (1 = as the whole model)"
    return Chart("Faithful: what the circuit keeps by itself", series, "", name, lines_at=(0.0, 1.0), x_ticks=ticks)


def _point(name: str, x: float, one: Effect, colour: str) -> dict:
    return {"name": name, "look": "points", "x": [x], "y": [one.effect], "low": [one.low], "high": [one.high], "colour": colour}


def scored_by(curve: Curve) -> str | None:
    """The method by whose scores a curve takes edges; None where that is not recorded."""
    scores = curve.metadata.get("scores")
    method = scores.get("method") if isinstance(scores, Mapping) else None
    return method if isinstance(method, str) else None


def _curve_chart(curve: Curve, verdict: Verdict | None) -> Chart:
    """What more and fewer edges keep, and beside it the circuit itself, which another method may have chosen."""
    edges, points = list(curve.edges), curve.faithfulness
    own = {"name": f"strongest edges: CPR {curve.cpr:.3f}, CMD {curve.cmd:.3f}", "look": "line", "x": edges, "colour": "0"}
    own |= {"y": [one.effect for one in points], "low": [one.low for one in points], "high": [one.high for one in points]}
    series = [own]
    if len(curve.null):
        low, high, mean = curve.null.min(dim=0).values, curve.null.max(dim=0).values, curve.null.mean(dim=0)
        band = {
            "name": f"{len(curve.null)} {curve.random_name} of each size: range",
            "look": "band",
            "x": edges,
            "y": mean.tolist(),
        }
        series.append({**band, "low": low.tolist(), "high": high.tolist(), "colour": "band"})
        series.append({"name": "their mean", "look": "line", "x": edges, "y": mean.tolist(), "colour": "faint"})
    name = "faithfulness (1 = as the whole model)"
    method = scored_by(curve)
    by = f" by {method}" if method is not None else ""
    own_words = "" if verdict is None else f"; the circuit itself: {verdict.edges:,} edges"
    if verdict is not None and verdict.edges:
        series.append(_point("the circuit, held out", float(verdict.edges), verdict.faithfulness, "1"))
    caption = f"Over all sizes: the strongest edges{by} alone, with 95 % intervals{own_words}"
    return Chart(caption, series, "edges", name, logarithmic=True, lines_at=(0.0, 1.0))


def _completeness_chart(verdict: Verdict) -> Chart:
    series = []
    for how, words, colour in (("random", "random halves of the nodes", "5"), ("greedy", "sets grown greedily", "1")):
        found = [one for one in verdict.completeness if one.how == how]
        if found:
            xs, ys = [one.model for one in found], [one.circuit for one in found]
            names = [_shortened(" ".join(one.nodes)) for one in found]
            series.append({"name": words, "look": "points", "x": xs, "y": ys, "names": names, "colour": colour})
    caption = f"Complete: circuit and model without the same nodes; largest gap {verdict.incompleteness:.2f}"
    return Chart(caption, series, "model without the set", "circuit without the set", diagonal=True)


def _completeness_grid(verdict: Verdict) -> Grid:
    rows = [(one.how, one.circuit, one.model, one.gap, " ".join(one.nodes)) for one in verdict.completeness]
    return Grid(("set", "circuit", "model", "gap", "nodes taken out"), rows, "Sets of nodes that were taken out", folded=True)


def _minimality_chart(verdict: Verdict) -> Chart:
    needs = sorted(verdict.minimality, key=lambda need: -abs(need.change))[:_MOST_BARS]
    kinds = (("needed", lambda change: change <= -UNNEEDED, "0"), ("in the way", lambda change: change >= UNNEEDED, "1"))
    kinds = (*kinds, ("not needed", lambda change: abs(change) < UNNEEDED, "faint"))
    series = []
    for name, fits, colour in kinds:
        found = [(place, need) for place, need in enumerate(needs) if fits(need.change)]
        if found:
            xs, ys = [float(place) for place, _ in found], [need.change for _, need in found]
            series.append(
                {"name": name, "look": "bars", "x": xs, "y": ys, "names": [need.node for _, need in found], "colour": colour}
            )
    ticks = [(float(place), need.node) for place, need in enumerate(needs)]
    spare = len(verdict.unneeded())
    words = f"{spare} of {_asked(verdict)} not needed" if spare else f"all {_asked(verdict)} needed"
    words = words if spare or verdict.drawn_from is not None else "every node is needed"
    name = "change of faithfulness when it goes"
    return Chart(f"Minimal: {words}", series, "nodes, the most needed first", name, lines_at=(0.0,), x_ticks=ticks)


def _minimality_grid(verdict: Verdict) -> Grid:
    needs = sorted(verdict.minimality, key=lambda need: -abs(need.change))
    rows = [(need.node, need.change, " ".join(need.without)) for need in needs]
    title = "Every node's need" if verdict.drawn_from is None else f"The need of {_asked(verdict)}"
    return Grid(("node", "change of faithfulness", "without"), rows, title, folded=True)


def _asked(verdict: Verdict) -> str:
    """The nodes that were asked for, in words."""
    nodes = f"{len(verdict.minimality)} nodes"
    return nodes if verdict.drawn_from is None else f"{nodes} drawn from {verdict.drawn_from}"


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
