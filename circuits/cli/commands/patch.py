"""`circuits patch`: activation, edge and path patching, its files and its report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from circuits.cli.measured import Setting, interval, naming_options, paired, prompts_of, save_figure
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import names_of, positions_of
from circuits.cli.text import one_line, print_json, table
from circuits.errors import CircuitsError, FileFormatError, GraphError
from circuits.graph import Node
from circuits.models import Model
from circuits.patching import Effects, patch_edges, patch_nodes, patch_path
from circuits.patching.effects import Direction
from circuits.patching.engine.sites import GROUPS, find_sites
from circuits.plots import effects_figure, path_figure
from circuits.plots.patching.effects import largest
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric

FILES = {
    "effects.json": "every prompt's numbers; circuits patch --open shows them again",
    "effects.csv": "every effect with its interval",
    "effects.png": "the effects as a heatmap, or the largest as bars",
    "paths.png": "the largest ones drawn through the layers",
}
"""What `circuits patch` writes, and what for; paths.png for edges and paths alone."""

_DIRECTIONS: dict[str, Direction] = {"denoising": "denoising", "noising": "noising"}
_WORDS = {"denoising": "clean values into corrupt runs", "noising": "corrupt values into clean runs"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches:
    """What is patched, and which way; one of nodes, edges and paths."""

    nodes: str | None = None
    edges: str | None = None
    paths: Sequence[str] = ()
    freeze_mlps: bool = False
    direction: str | None = None

    def check(self) -> None:
        """Raise CircuitsError where the options contradict each other; needs no model."""
        given = [name for name, there in (("--nodes", self.nodes), ("--edges", self.edges), ("--path", self.paths)) if there]
        if len(given) > 1:
            raise CircuitsError(f"{' and '.join(given)} exclude each other: patch nodes, edges or paths")
        if self.freeze_mlps and not self.paths:
            raise CircuitsError("--freeze-mlps says what happens on a path: it needs --path")
        if self.direction is not None and self.direction not in _DIRECTIONS:
            raise CircuitsError(f"unknown direction {self.direction!r}: expected denoising or noising")

    def measure(self, model: Model, pairs: PromptPairs, metric: Metric, **options: Any) -> Effects:
        """Patch them. Raises GraphError for names that the model lacks."""
        direction = _DIRECTIONS[self.direction or ("noising" if self.paths else "denoising")]
        if self.paths:
            paths = [names_of(path) for path in self.paths]
            return patch_path(model, pairs, metric, paths, freeze_mlps=self.freeze_mlps, direction=direction, **options)
        if self.edges is not None:
            edges = None if self.edges.strip() == "all" else names_of(self.edges)
            if edges == []:
                raise GraphError("there are no edges to patch: name some, such as 'm0->m1,a0.h1->logits', or all")
            return patch_edges(model, pairs, metric, edges, direction=direction, **options)
        nodes = names_of(self.nodes or "nodes")
        check_names(model, nodes)
        return patch_nodes(model, pairs, metric, nodes, direction=direction, **options)


def check_names(model: Model, names: Sequence[str]) -> None:
    """Raise GraphError, with the groups that there are, for names of which one is no node, site or group of the model."""
    try:
        find_sites(model, names)
    except GraphError as error:
        if "is not a node" not in str(error):
            raise
        raise GraphError(f"{error}; or one of the groups {', '.join(GROUPS)}") from None


def run(patches: Patches, setting: Setting, *, top: int, as_json: bool) -> None:
    """Patch, write the files, print the report."""
    patches.check()
    folder, positions = setting.folder("patch"), positions_of(setting.positions)
    with staged(folder) as staging, ProgressBars() as progress, naming_options():
        model, pairs, metric = setting.prepare(progress)
        options = {"positions": positions, "budget": setting.budget, "seed": setting.prompts.seed, "progress": progress}
        effects = setting.noted(patches.measure(model, pairs, metric, **options), model, pairs)
        effects.save(staging / "effects.json")
        files = ["effects.json", *_write(effects, staging)]
    if "paths.png" not in files:  # that of an earlier run would show something else
        (folder / "paths.png").unlink(missing_ok=True)
    if as_json:
        print_json(_contents(effects, folder, files))
    else:
        typer.echo("\n\n".join([_report(effects, folder, files, top), paired("Try next", _next(effects, setting))]))


def reopen(file: Path, *, out: Path | None, top: int, as_json: bool) -> None:
    """Print saved effects again, and write their table and pictures beside them, or into `out`."""
    effects, folder = Effects.load(file), file.parent if out is None else out
    if not len(effects) or not len(effects.clean):
        raise FileFormatError(f"{file}: holds no effects")
    with staged(folder) as staging:
        files = _write(effects, staging)
    if as_json:
        print_json(_contents(effects, folder, files))
    else:
        typer.echo(_report(effects, folder, files, top))


def _write(effects: Effects, folder: Path) -> list[str]:
    """Write the table and the pictures; returns their names."""
    effects.to_dataframe().to_csv(folder / "effects.csv", index=False)
    save_figure(effects_figure(effects), folder / "effects.png")
    if any("->" in name for name in effects.names):
        try:
            save_figure(path_figure(effects), folder / "paths.png")
        except GraphError as error:  # whole MLPs and single neurons have no picture together
            typer.echo(f"no paths.png: {one_line(error)}", err=True)
    return [name for name in FILES if (folder / name).is_file() and name != "effects.json"]


def _contents(effects: Effects, folder: Path, files: Sequence[str]) -> dict[str, Any]:
    about = {key: effects.metadata.get(key) for key in ("model", "patched", "metric", "source")}
    ends = {"clean": float(effects.clean.mean()), "corrupt": float(effects.corrupt.mean())}
    found = {"direction": effects.direction, "prompts": len(effects.clean), **ends}
    rows = effects.to_dataframe().drop(columns="prompts").to_dict("records")
    return {**about, **found, "effects": rows, "files": {name: str(folder / name) for name in files}}


def _report(effects: Effects, folder: Path, files: Sequence[str], top: int) -> str:
    about, count, prompts = effects.metadata, len(effects), len(effects.clean)
    metric, patched = (one_line(about.get(key, "")).replace("_", " ") for key in ("metric", "patched"))
    how = f"{_WORDS[effects.direction]} ({effects.direction})"
    lines = [
        f"{one_line(about.get('model', 'model'))}: {count:,} {patched if count > 1 else patched.rstrip('s')} patched one at a "
        f"time, {how}",
        f"{prompts_of(effects)}: mean {metric} {float(effects.clean.mean()):.4g} clean, "
        f"{float(effects.corrupt.mean()):.4g} corrupt",
    ]
    first = largest(effects, top)
    shown = [_labelled(name, about.get("tokens")) for name in first.names]
    rows = [(name, interval(found, prompts)) for name, found in zip(shown, first.intervals(), strict=True)]
    more = f"\n... and {count - len(rows):,} more in effects.csv" if count > len(rows) else ""
    header = ("largest effects", "share of the gap bridged" + " [95 % interval]" * (prompts > 1))
    listed = paired(f"Files in {one_line(folder)}", [(name, FILES[name]) for name in files])
    return "\n\n".join(["\n".join(lines), table(header, rows, indent=0) + more, listed])


def _labelled(name: str, tokens: object) -> str:
    """A name, with the token that stands at its position where there is one prompt."""
    column = name.rpartition("@")[2] if "@" in name else ""
    if not isinstance(tokens, list) or not column.isdigit() or int(column) >= len(tokens):
        return name
    return f"{name} {str(tokens[int(column)]).replace(' ', '·')}"


def _next(effects: Effects, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    patched, node, steps = effects.metadata["patched"], _best_node(effects), []
    inner = next((name for name in largest(effects, len(effects)).names if _is_inner(name)), None)
    if patched == "nodes" and setting.positions is None:
        steps.append((setting.command("patch", "--nodes", "residual", "--positions", "each"), "which positions matter"))
    if patched == "nodes":
        steps.append((setting.command("patch", "--edges", "all"), "through which edges"))
    if patched == "edges" and inner is not None:
        path = f"{inner.partition('@')[0].replace('->', ',')},logits"
        steps.append((setting.command("patch", "--path", path), "how much of it goes on to the logits"))
    if node is not None:
        steps.append((setting.command("ablate", str(node)), f"what is lost without {node}"))
    return [*steps, setting.opening("patch", "effects.json")]


def _is_inner(name: str) -> bool:
    """Whether an edge runs between two nodes of the model's inside."""
    return "->" in name and not name.startswith("input") and "logits" not in name


def _best_node(effects: Effects) -> Node | None:
    """The head, MLP or neuron with the largest effect, as a site or as the start of an edge or path."""
    for name in largest(effects, len(effects)).names:
        try:
            node = Node.parse(name.partition("@")[0].partition("->")[0].partition("<")[0])
        except GraphError:
            continue
        if node.kind != "input":
            return node
    return None
