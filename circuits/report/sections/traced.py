"""Causal tracing as sections: a heatmap a kind of site, and curves by the token's role."""

from circuits.patching import Trace, Traces
from circuits.report.blocks import AnyBlock, Chart, Facts, Grid, Heatmap, Paragraphs, Section

_KINDS = {
    "states": "States restored after a layer",
    "mlp": "MLP outputs restored",
    "attention": "Attention outputs restored",
    "states_severed_mlp": "States restored, later MLPs severed",
    "states_severed_attention": "States restored, later attention severed",
}
_MOST_TRACES = 8
"""Facts whose heatmaps are shown."""
_MOST_SKIPPED = 50


def trace_section(trace: Trace, *, title: str = "Causal tracing") -> Section:
    """One traced prompt (Meng et al. 2022): where the answer's probability returns when the clean value is put back."""
    corrupted = float(trace.corrupted.mean())
    how = f"noise of sd {trace.noise:.3g}, {len(trace.corrupted)} draws" if trace.noise else "another subject"
    rows = [
        ("prompt", trace.prompt),
        ("answer", trace.answer),
        ("its probability", f"{trace.clean:.1%} clean, {corrupted:.1%} with the subject corrupted ({how})"),
        ("total effect", f"{trace.total_effect:+.3f}"),
    ]
    return Section(title, [Facts(rows), *heatmaps(trace)])


def heatmaps(trace: Trace) -> list[AnyBlock]:
    """A heatmap a kind of site: tokens by layers, indirect effects."""
    first, last = trace.subject
    found: list[AnyBlock] = []
    for kind in trace.restored:
        effects = trace.effects(kind)
        window = f", windows of {trace.window} layers" if kind in ("mlp", "attention") else ""
        caption = f"{_KINDS.get(kind, kind)}{window}: indirect effect (subject underlined)"
        layers = [str(layer) for layer in range(effects.shape[1])]
        marked = list(range(first, last + 1))
        found.append(Heatmap(list(trace.tokens), layers, effects.tolist(), caption, "token", "layer", marked=marked))
    return found


def traces_section(traces: Traces, *, title: str = "Causal tracing") -> Section:
    """Many traced facts: average indirect effects by the token's role, with 95 % intervals, then single facts."""
    if not traces.traces:
        return Section(title, [Paragraphs([traces.summary], tone="warning")], "nothing traced", "bad")
    blocks: list[AnyBlock] = [Paragraphs([traces.summary])]
    for kind in traces.traces[0].restored:
        series = []
        for place, (role, (mean, half, count)) in enumerate(traces.average_by_role(kind).items()):
            layers, ys, reach = list(range(len(mean))), mean.tolist(), half.tolist()
            one = {"name": f"{role} ({count})", "look": "line", "x": layers, "y": ys, "colour": str(place % 6)}
            one |= {
                "low": [y - r for y, r in zip(ys, reach, strict=True)],
                "high": [y + r for y, r in zip(ys, reach, strict=True)],
            }
            series.append(one)
        caption = f"{_KINDS.get(kind, kind)}: average indirect effect by role, with 95 % intervals"
        blocks.append(Chart(caption, series, "layer", "average indirect effect", lines_at=(0.0,)))
    rows = [(one.prompt, one.answer, one.clean, float(one.corrupted.mean()), one.total_effect) for one in traces.traces]
    blocks.append(Grid(("prompt", "answer", "clean", "corrupted", "total effect"), rows, "The facts", folded=True))
    for trace in traces.traces[:_MOST_TRACES]:
        blocks += [Paragraphs([f"{trace.prompt} → {trace.answer}"]), *heatmaps(trace)[:1]]
    if traces.skipped:
        skipped = [(prompt, reason) for prompt, reason in traces.skipped[:_MOST_SKIPPED]]
        blocks.append(Grid(("prompt", "why"), skipped, f"Left out: {len(traces.skipped)}", folded=True))
    return Section(title, blocks)
