"""`circuits features graph`: what wrote what in one prompt, from embeddings through features to the next token."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import DictionaryAt, DictionaryPaths, Open
from circuits.cli.prompts import require_text
from circuits.cli.questions.features import DictionaryFiles
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError, PromptError

NEURONPEDIA = "attribution.neuronpedia.json"
FILES = {
    "attribution-graph.json": "the graph; circuits features graph --open shows it again",
    NEURONPEDIA: "the same in the layout of circuit-tracer and Neuronpedia's viewer",
    "attribution-graph.csv": "its links as a table",
    "attribution-graph.png": "its strongest nodes and links over the tokens",
}
"""What `circuits features graph` writes, and what for."""


@app.command("features graph")
@with_setting("features", memory=True, long=False)
def features_graph(
    context: Context,
    files: DictionaryPaths = None,
    at: DictionaryAt = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The text that is looked at.", show_default=False)
    ] = None,
    logits: Annotated[int, typer.Option(min=1, help="Next tokens that are shown at most.")] = 10,
    nodes: Annotated[float, typer.Option(min=0, max=1, help="Share of the influence that the nodes kept have.")] = 0.8,
    links: Annotated[float, typer.Option(min=0, max=1, help="The same of links.")] = 0.98,
    features: Annotated[int, typer.Option(min=1, help="Active features at most, those that write most.")] = 4096,
    slug: Annotated[str | None, typer.Option(help="The graph's name in the viewer.", show_default="from the prompt")] = None,
    scan: Annotated[str | None, typer.Option(help="The model's name in the viewer.", show_default="the model's")] = None,
    top: Annotated[int, typer.Option(min=1, help="Nodes to print.")] = 12,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """See what wrote what in one prompt.

    Embeddings, active features, what dictionaries leave over and MLPs that none takes apart write into later features and
    into the next token; with attention as it looked and norms at their scales that is a sum. Weak nodes and links are left
    out. The file for Neuronpedia's viewer has circuit-tracer's layout; --open also reads one that they wrote.

    \b
    Examples:
      circuits features graph dictionary.safetensors --prompt "The cat sat on the"
      circuits features graph layers.1.mlp layers.2.mlp -p "The cat sat on the"
      circuits features graph --open out/features-mini/attribution-graph.json
      circuits features graph --open theirs.json --out out/theirs
    """
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    if prompt is None:
        raise PromptError("an attribution graph is of one prompt: give --prompt")
    require_text(prompt, "--prompt")
    if not nodes or not links:
        raise CircuitsError("--nodes and --links are shares above 0, up to 1")
    about = {"logits": logits, "nodes": nodes, "links": links, "features": features}
    run(DictionaryFiles(files=files or (), at=at), prompt, setting, about, slug=slug, scan=scan, top=top)


def run(
    given: DictionaryFiles,
    prompt: str,
    setting: Setting,
    about: dict[str, Any],
    *,
    slug: str | None,
    scan: str | None,
    top: int,
) -> None:
    """Build the graph, write the files, print the report."""
    from circuits.cli.reports.feature_nodes import graph_report, write_graph

    dictionaries = given.read()
    slug = slug or re.sub(r"[^A-Za-z0-9_.-]+", "-", prompt).strip("-.")[:40] or "prompt"
    with setting.parts(FILES, below="graph", options="--features, --memory") as work:
        model = setting.load(work.progress)
        given.check(model, dictionaries)
        found = circuits.concepts.attribution_graph(
            model, dictionaries, prompt, **about, budget=setting.budget, progress=work.progress
        )
        circuits.concepts.save_graph_file(found, work.staging / NEURONPEDIA, slug=slug, scan=scan or found.model)
        found.save(work.staging / "attribution-graph.json")
        work.publish()
        write_graph(found, work.staging)
    setting.answer(graph_report(found, top, work.written, [setting.opening("attribution-graph.json", "graph")]))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print a saved graph again, ours or one in the viewer's layout, and write its table and picture beside it, or into the
    folder asked for."""
    from circuits.cli.reports.feature_nodes import graph_report, write_graph
    from circuits.files.reading import read_json
    from circuits.files.results import LARGEST_RESULT
    from circuits.graph.neuronpedia import is_neuronpedia

    theirs = is_neuronpedia(read_json(file, max_bytes=LARGEST_RESULT))
    kind = circuits.concepts.AttributionGraph
    found = circuits.concepts.read_graph_file(file) if theirs else opened(kind, file)
    setting, files = written_again(found, file, setting, write_graph, FILES)
    setting.answer(graph_report(found, top, files))
