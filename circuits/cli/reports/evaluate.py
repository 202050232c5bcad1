"""The verdict on a circuit as it is printed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from circuits.cli.options import OUTSIDE
from circuits.cli.prompts import Behaviour
from circuits.cli.questions.discover import COUNT as PAIRS
from circuits.cli.report import Part, Report, Table
from circuits.cli.reports.look import figures, looked
from circuits.cli.reports.verdict import again, asks, judged, named
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.graph.per_head import PerHead
from circuits.search.judging.verdict import Verdict
from circuits.tasks import PromptReport
from circuits.tasks.metric import Metric, Relative

_MOST_ROWS = 12


def evaluation_report(
    verdict: Verdict,
    file: Path,
    asked: Behaviour,
    setting: Setting,
    how: tuple[str, str, Metric | Relative, PromptReport],
    files: Mapping[str, str],
    counts: PerHead | None = None,
) -> Report:
    """What the circuit of a file keeps; `how`: in which model, with what outside of it, by which metric, and how the
    model does on the prompts; `counts`: the edges that the file itself has, where it counts by query head."""
    (model, outside, metric, look), source = how, asked.prompts.describe()
    heading = (
        f"{one_line(file)} in {one_line(model)}: {verdict.edges:,} edges between {verdict.nodes} nodes\n"
        f"{verdict.prompts:,} prompts ({one_line(source)}); metric: {named(metric)}; edges outside carry {OUTSIDE[outside]}"
        f"{asks(asked)}"
    )
    heading += "" if counts is None else f"\nthe file: {counts.describe()}"
    parts: list[Part] = [judged(verdict)]
    parts += [_completeness(verdict)] if verdict.completeness else []
    parts += [_minimality(verdict)] if verdict.minimality else []
    data = {"circuit": str(file), "model": model, "task": asked.prompts.name, "source": source, "metric": named(metric)}
    data |= {"question": asked.prompts.question or None}
    data |= {"outside": outside, "standing": verdict.standing, "summary": verdict.summary}
    data |= {"by_query_head": None if counts is None else dataclasses.asdict(counts)}
    found = figures(look)
    data |= {"verdict": verdict.as_json(), "unneeded": list(verdict.unneeded()), "look": found}
    parts.append(looked(found))
    return Report(heading=heading, parts=parts, data=data, files=files, next=_next(file, asked, outside, setting))


def _completeness(verdict: Verdict) -> Table:
    """The sets that tell circuit and model apart most."""
    worst = sorted(verdict.completeness, key=lambda one: -one.gap)[:3]
    rows = [(_short(one.nodes), f"{one.circuit:z.2f}", f"{one.model:z.2f}", f"{one.gap:z.2f}") for one in worst]
    looked = verdict.metadata.get("completeness_prompts", verdict.prompts)
    some = f"on the first {looked} prompts: so many nodes are taken out on no more" if looked != verdict.prompts else ""
    return Table(("complete? faithfulness without", "circuit", "model", "gap"), rows, below=some)


def _minimality(verdict: Verdict) -> Table:
    """What each node is worth, and those that nothing is lost without."""
    needs = sorted(verdict.minimality, key=lambda need: -abs(need.change))
    rows = [(need.node, f"{need.change:+z.3f}", _short(need.without) or "-") for need in needs[:_MOST_ROWS]]
    header = ("minimal? most-needed nodes", "change of faithfulness without it", "after")
    more = [f"... and {len(needs) - len(rows):,} more in verdict.csv"] if len(needs) > len(rows) else []
    spare = verdict.unneeded()
    words = f"not needed (changes below 0.01): {', '.join(spare)}" if spare else "every node is needed"
    looked, of = verdict.metadata.get("minimality_prompts"), verdict.drawn_from
    if of is not None:
        words = words if spare else "every one of them is needed"
        more.append(f"{len(needs)} nodes drawn at random from {of}; --minimality all asks for every one")
    alone = [] if looked is None else [f"each by itself, on the first {looked} prompts: of so many nodes no more is tried"]
    return Table(header, rows, below="\n".join([*more, *alone, one_line(words)]))


def _short(nodes: tuple[str, ...]) -> str:
    text = " ".join(nodes)
    return text if len(text) <= 40 else f"{' '.join(nodes[:4])} ... ({len(nodes)} nodes)"


def _next(file: Path, asked: Behaviour, outside: str, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    other, seed = "mean" if outside == "corrupt" else "corrupt", asked.prompts.seed
    words = ["evaluate", str(file), "--outside", other, *again(asked, seed=seed, usual=1)]
    return [
        (setting.command(*words), f"edges outside carry {OUTSIDE[other]}"),
        (setting.command("discover", *again(asked, seed=seed, count=PAIRS)), "a circuit of your own for this task"),
        (setting.command("info", str(file), model=False), "what is in the circuit"),
    ]
