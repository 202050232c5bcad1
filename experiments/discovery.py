"""Shared by the experiments that search for a task's circuit and set it beside what papers report."""

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from circuits.cli.loading import load
from circuits.cli.progress import ProgressBars
from circuits.errors import CircuitsError
from circuits.models import Model
from circuits.search.discover import Discovery, discover
from circuits.search.judging.curves import Curve
from circuits.search.judging.roc import node_scores, roc
from circuits.search.methods.table import METHODS, OTHERWISE
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric, answer_logits
from circuits.tasks.registry import task
from circuits.tasks.sources.known import KnownCircuit, known_circuit, known_for, precision_recall


@dataclasses.dataclass(frozen=True)
class Published:
    """One figure of a paper, and where it is from."""

    what: str
    value: str
    source: str


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """A circuit with what the whole model does on the same prompts."""

    model: Model
    task: str
    discovery: Discovery
    clean: float
    """The metric's mean on the clean prompts of both halves; `corrupt` likewise."""
    corrupt: float
    right: float
    """Share of clean prompts on which the metric is above zero."""

    @property
    def known(self) -> KnownCircuit | None:
        """The paper's circuit, where the model has its shape."""
        return known_circuit(self.task) if known_for(self.task, self.model.graph()) else None


def parser_of(doc: str | None, *, model: str) -> argparse.ArgumentParser:
    """The options that these experiments share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=model, help=f"bundled model, Hugging Face directory or hub name (default: {model})")
    parser.add_argument("--method", default=OTHERWISE, choices=list(METHODS))
    parser.add_argument("--edges", type=int, default=200, help="edges of the circuit (default: 200)")
    parser.add_argument("--count", type=int, default=64, help="pairs: half to search on, half to judge on (default: 64)")
    parser.add_argument("--random-circuits", type=int, default=128, help="of the null distribution (default: 128)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the circuit, the verdict, the curve and the report as JSON")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(options: argparse.Namespace, name: str, published: Sequence[Published], notes: Sequence[str]) -> None:
    """Search, judge, write and print; ends with exit code 2 and one line where that cannot be done."""
    try:
        found = search(options, name)
        figures = as_json(found, published)
        if options.out is not None:
            write(found, options.out, figures)
    except (CircuitsError, OSError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        show(found, figures, published, notes)


def search(options: argparse.Namespace, name: str) -> Found:
    """The task's pairs on the model, and the circuit found on half of them."""
    asked = task(name)
    model = load(options.model, device=options.device, dtype=options.dtype)
    pairs = asked.pairs(model, options.count, options.seed)
    metric = asked.metric(model, pairs)
    clean, corrupt = mean_metric(model, pairs, metric)
    with ProgressBars() as progress:
        found = discover(
            model,
            pairs,
            metric,
            method=options.method,
            edges=min(options.edges, model.graph().edge_count),
            random_circuits=options.random_circuits,
            seed=options.seed,
            progress=progress,
        )
    return Found(model, name, found, float(clean.mean()), float(corrupt.mean()), float((clean > 0).double().mean()))


@torch.no_grad()
def mean_metric(model: Model, pairs: PromptPairs, metric: Metric) -> tuple[torch.Tensor, torch.Tensor]:
    """The metric on every clean and on every corrupt prompt."""
    clean, corrupt = (answer_logits(model.run(side, keep="logits"), pairs) for side in (pairs.clean, pairs.corrupt))
    return metric(clean, pairs), metric(corrupt, pairs)


def random_areas(curve: Curve) -> tuple[float, float]:
    """CPR and CMD of random circuits: edges on random paths, up to a quarter of all edges; MIB's baseline draws from all."""
    shares, mean = torch.tensor(curve.shares, dtype=torch.float64), curve.null.mean(dim=0)
    return float(torch.trapezoid(mean, shares)), float(torch.trapezoid((1 - mean).abs(), shares))


def heads_table(found: Found) -> list[dict[str, Any]]:
    """For each class of the paper's heads, which are in the circuit."""
    known, nodes = found.known, {str(node) for node in found.discovery.circuit.nodes}
    if known is None:
        return []
    rows = [(kind, names, [name for name in names if name in nodes]) for kind, names in known.heads.items()]
    return [{"class": kind, "heads": list(names), "found": held} for kind, names, held in rows]


def as_json(found: Found, published: Sequence[Published]) -> dict[str, Any]:
    """Everything that is measured, and the published figures."""
    one, known, curve = found.discovery, found.known, found.discovery.curve
    document: dict[str, Any] = {
        "task": found.task,
        "model": found.model.name,
        "metric_clean": found.clean,
        "metric_corrupt": found.corrupt,
        "right": found.right,
        "edges": one.verdict.edges,
        "nodes": one.verdict.nodes,
        "faithfulness": one.verdict.faithfulness.as_json(),
        "p_value": one.verdict.p_value,
        "incompleteness": one.verdict.incompleteness,
        "published": [dataclasses.asdict(figure) for figure in published],
    }
    if curve is not None:
        chance = random_areas(curve)
        document |= {"cpr": curve.cpr, "cmd": curve.cmd, "random_cpr": chance[0], "random_cmd": chance[1]}
    if known is not None:
        precision, recall = precision_recall(one.circuit.nodes, known)
        document["known"] = {"reference": known.reference, "precision": precision, "recall": recall}
        document["known"]["classes"] = heads_table(found)
        if one.scores is not None and one.scores.complete:
            heads = {name: score for name, score in node_scores(one.scores).items() if name[0] == "a"}
            members = {name for names in known.heads.values() for name in names}
            document["known"]["head_auroc"] = roc(heads, members).auroc
    return document


def show(found: Found, figures: dict[str, Any], published: Sequence[Published], notes: Sequence[str]) -> None:
    """Print the measured figures, the published ones and what to know about both."""
    known = found.known
    print(f"{found.task} in {found.model.name}")
    lines = [f"Metric: {found.clean:.3g} on clean prompts, {found.corrupt:.3g} on corrupt ones; above 0 on {found.right:.0%}."]
    if found.clean <= found.corrupt or found.right < 0.75:
        lines.append("THIS MODEL DOES NOT DO THE TASK: what follows shows that the programs run, and says nothing about it.")
    lines.append(found.discovery.verdict.summary)
    if "cpr" in figures:
        lines.append(
            f"Over all sizes: CPR {figures['cpr']:.2f}, CMD {figures['cmd']:.2f} "
            f"(edges on random paths: {figures['random_cpr']:.2f}, {figures['random_cmd']:.2f})."
        )
    if known is None:
        lines.append("The model has not the shape of the paper's model (GPT-2 small): its heads cannot be compared.")
    print("\n".join(textwrap.fill(line, 116) for line in lines))
    if known is not None:
        numbers = figures["known"]
        print(
            f"\nHeads against {known.reference}: precision {numbers['precision']:.2f}, recall {numbers['recall']:.2f}", end=""
        )
        print(f", AUROC {numbers['head_auroc']:.2f}" if "head_auroc" in numbers else "")
        for row in numbers["classes"]:
            held = " ".join(row["found"]) or "none"
            print(f"  {row['class'].replace('_', ' '):<22}{len(row['found'])} of {len(row['heads'])}: {held}")
    print("\nPublished")
    for figure in published:
        print(f"  {figure.what:<58}{figure.value:>14}  {figure.source}")
    print("\n".join(["", *(textwrap.fill(note, 116, initial_indent="- ", subsequent_indent="  ") for note in notes)]))


def write(found: Found, out: Path, figures: dict[str, Any]) -> None:
    """Every result as a file, each named after the task."""
    out.mkdir(parents=True, exist_ok=True)
    one = found.discovery
    one.circuit.save(out / f"{found.task}.circuit.json")
    one.verdict.save(out / f"{found.task}.verdict.json")
    if one.curve is not None:
        one.curve.save(out / f"{found.task}.curve.json")
    (out / f"{found.task}.report.json").write_text(json.dumps(figures, indent=1))
