"""How well every search method finds circuits that are known: models whose weights were set by hand or trained for one route.

    python experiments/ground_truth.py [--seeds 3] [--models or,chain] [--methods eap,eap-ig] [--out out/ground_truth] [--json]

The measure is the area under the ROC curve (AUROC): the chance that an edge of the circuit scores above another, ties counting
half. Members: the planted edges that carry a difference between the clean and the corrupt prompts. Planted edges that carry
none (a query that reads a position, a backup that sleeps in both) belong to neither class, as no patch can show them. Nodes:
heads and MLPs by the largest score of an edge that leaves them. Scores below 1e-9 of the largest are rounding and count as 0.
`acdc`: an edge's score is the largest of a geometric row of thresholds at which it is kept (KL to the clean run). `screen`:
eap-ig proposes 100 edges, exact patching tests them; the score is the size of the effect, 0 for edges that were not tested.
`prune` trains gates for as many edges as there are members.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import EdgeScores, attribute_edges
from circuits.cli.progress import ProgressBars
from circuits.errors import CircuitsError
from circuits.graph import Circuit
from circuits.models.planted import Planted
from circuits.progress import Progress
from circuits.search.acdc.descent import acdc_thresholds
from circuits.search.judging.roc import node_scores, roc
from circuits.search.methods.pruning import prune_edges
from circuits.search.screening import Screening, screen_then_verify
from circuits.tasks import PromptPairs
from circuits.tasks.library.planted import carrying, planted_task
from circuits.tasks.metrics import logit_difference
from experiments.ground_truth_models import trained_route

PLANTED = ("induction", "recall", "gate", "or", "chain")
MODELS = (*PLANTED, "trained")
ROUNDING = 1e-9
"""Scores smaller than this share of the largest have no order among themselves that another machine would find again."""
GRID = tuple(10 ** (exponent / 4) for exponent in range(-16, 5))
"""ACDC's thresholds in nats, from 1e-4 to 10."""


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One model, its pairs, and what is there to be found."""

    planted: Planted
    pairs: PromptPairs
    truth: Circuit

    @classmethod
    def of(cls, name: str, seed: int) -> "Case":
        """The model of that name and seed."""
        planted, pairs = trained_route(seed) if name == "trained" else planted_task(name, seed)
        return cls(planted, pairs, carrying(planted, pairs))

    @property
    def silent(self) -> set[str]:
        """Planted edges that carry no difference."""
        return {str(edge) for edge in self.planted.whole.edges} - {str(edge) for edge in self.truth.edges}

    def scored(self, method: str, progress: Progress) -> tuple[EdgeScores, Screening | None]:
        """A method's scores without rounding, and for `screen` what it tested."""
        scores, tests = METHODS[method](self, progress)
        small = scores.by_label.abs() < ROUNDING * scores.by_label.abs().max()
        return dataclasses.replace(scores, by_label=scores.by_label.masked_fill(small, 0.0)), tests

    def edge_auroc(self, scores: EdgeScores) -> float:
        """Of the members against all edges that are not planted."""
        return roc(scores, self.truth, excluded=self.silent).auroc

    def node_auroc(self, scores: EdgeScores) -> float:
        """Of the heads and MLPs that a member leaves against those that are not planted."""
        found = {name: score for name, score in node_scores(scores).items() if name[0] in "am"}
        members = {str(edge.writer) for edge in self.truth.edges} & found.keys()
        return roc(found, members, excluded={str(node) for node in self.planted.whole.nodes} - members).auroc


Found = tuple[EdgeScores, Screening | None]


def attributed(method: Any) -> Callable[[Case, Progress], Found]:
    """A method of `attribute_edges`."""

    def run(case: Case, progress: Progress) -> Found:
        return attribute_edges(case.planted.model, case.pairs, logit_difference, method=method, progress=progress), None

    return run


def by_acdc(case: Case, progress: Progress) -> Found:
    """For every edge the largest threshold at which ACDC keeps it."""
    found = acdc_thresholds(case.planted.model, case.pairs, GRID, progress=progress)
    kept: dict[str, float] = {}
    for threshold, circuit in zip(GRID, found, strict=True):
        kept |= {str(edge): threshold for edge in circuit.edges}
    return listed(case, kept), None


def by_pruning(case: Case, progress: Progress) -> Found:
    """Gates trained to keep as many edges as there are to be found."""
    return prune_edges(case.planted.model, case.pairs, edges=len(case.truth.edges), progress=progress), None


def screened(case: Case, progress: Progress) -> Found:
    """Exact effects of the 100 edges that attribution proposes and of those around redundant nodes."""
    estimates = attributed("eap-ig")(case, progress)[0]
    found = screen_then_verify(case.planted.model, case.pairs, logit_difference, estimates, progress=progress)
    return listed(case, {str(one.edge): abs(one.effect.effect) for one in found.tested}), found


def listed(case: Case, scores: dict[str, float]) -> EdgeScores:
    """Scores by edge, 0 where there is none."""
    graph = case.planted.model.graph()
    values = torch.tensor([[scores.get(str(edge), 0.0) for edge in graph.edges()]], dtype=torch.float64)
    return EdgeScores.listed(graph, values, torch.full_like(values, float("nan")))


METHODS: dict[str, Callable[[Case, Progress], Found]] = {
    "eap": attributed("eap"),
    "eap-ig": attributed("eap-ig"),
    "eap-ig-activations": attributed("eap-ig-activations"),
    "exact": attributed("exact"),
    "acdc": by_acdc,
    "prune": by_pruning,
    "screen": screened,
}
SATURATION = "saturation: the clean run's attention is so sure that its gradient says nothing about queries and keys"
REDUNDANCY = "OR redundancy: another way does the work of the one that is cut, so that its edges have no effect alone"
WHY = {
    ("eap", "or"): "saturation: with both ways on, the OR no longer changes with either of them",
    ("exact", "or"): REDUNDANCY,
    ("prune", "or"): "OR redundancy: closing the gates of one way costs nothing while another stays open",
    ("eap-ig-activations", "or"): "OR redundancy: while one layer's outputs change, the way through another keeps the OR on",
    ("acdc", "or"): "OR redundancy: the way that is visited first is cut, as the other one does its work",
}


def why(method: str, model: str) -> str:
    """What keeps a method from finding all of a model's circuit."""
    if method == "eap":
        return WHY.get((method, model), SATURATION)
    return WHY.get((method, model), "no single reason is known")


def measure(models: Sequence[str], methods: Sequence[str], seeds: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """One row a model, seed and method."""
    for model in models:
        for seed in range(seeds):
            case = Case.of(model, seed)
            for method in methods:
                print(f"{model}, seed {seed}: {method}", file=sys.stderr)
                started = time.perf_counter()
                scores, tests = case.scored(method, progress)
                row = {"model": model, "seed": seed, "method": method, "seconds": round(time.perf_counter() - started, 3)}
                row |= {"edge_auroc": case.edge_auroc(scores), "node_auroc": case.node_auroc(scores)}
                if tests is not None:
                    whole, confirmed = case.planted.whole.edges, tests.circuit.edges
                    row["whole_recall"] = sum(edge in confirmed for edge in whole) / len(whole)
                yield row


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Median and least AUROC by method and model, with the reason where one is below 1."""
    groups = rows.groupby(["method", "model"], sort=False)
    found = groups.agg(
        seeds=("seed", "size"),
        edge_median=("edge_auroc", "median"),
        edge_min=("edge_auroc", "min"),
        node_median=("node_auroc", "median"),
        node_min=("node_auroc", "min"),
        seconds=("seconds", "median"),
    ).reset_index()
    short = found["edge_min"] < 1 - 1e-9
    found["why"] = [
        why(method, model) if low else "" for method, model, low in zip(found["method"], found["model"], short, strict=True)
    ]
    return found


def show(rows: pd.DataFrame) -> None:
    """Print a table of edges and one of nodes, methods by models, and what is below 1."""
    lines = summary(rows).to_dict("records")
    models, methods = (list(dict.fromkeys(line[name] for line in lines)) for name in ("model", "method"))
    cells = {(line["method"], line["model"]): line for line in lines}
    for kind in ("edge", "node"):
        print(f"AUROC of {kind}s, {rows['seed'].nunique()} models of each kind: median (least)")
        print(f"{'':<20}" + "".join(f"{model:>16}" for model in models))
        for method in methods:
            numbers = [(cells[method, model][f"{kind}_median"], cells[method, model][f"{kind}_min"]) for model in models]
            print(f"{method:<20}" + "".join(f"{f'{median:.3f} ({least:.3f})':>16}" for median, least in numbers))
        print()
    for line in lines:
        if line["why"]:
            print(f"{line['method']} on {line['model']}: {line['why']}.")
    found = rows[(rows["model"] == "or") & (rows["method"] == "screen")]
    recalls = [] if found.empty else sorted(map(float, found["whole_recall"]))
    if recalls:
        print(
            f"screen on or: confirms {statistics.median(recalls):.0%} of all planted edges (least {recalls[0]:.0%}), the way "
            "out of the backup that sleeps in clean and corrupt prompts among them where it is 100%."
        )


def chosen(text: str | None, known: Sequence[str], what: str) -> list[str]:
    """Names between commas. Raises CircuitsError for others than the known ones."""
    names = list(known) if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise CircuitsError(f"no {what} {name!r}; there are {', '.join(known)}")
    return names


def main() -> None:
    """Parse the command line, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind (0, 1, ...)")
    parser.add_argument("--models", help=f"between commas, of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--methods", help=f"between commas, of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--out", type=Path, help="folder for ground_truth.csv (every seed) and ground_truth.json")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds is a number from 1 on")
    try:
        models, methods = chosen(options.models, MODELS, "model"), chosen(options.methods, list(METHODS), "method")
        with ProgressBars() as progress:
            rows = pd.DataFrame(measure(models, methods, options.seeds, progress))
    except (CircuitsError, OSError) as error:
        print(f"ground_truth: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    document = {"seeds": options.seeds, "summary": summary(rows).to_dict("records")}
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(options.out / "ground_truth.csv", index=False)
        (options.out / "ground_truth.json").write_text(json.dumps(document, indent=1))
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        show(rows)


if __name__ == "__main__":
    main()
