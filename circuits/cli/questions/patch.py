"""What `circuits patch` asks: what is patched, and which way."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import circuits
from circuits.cli.prompts import names_of
from circuits.errors import CircuitsError, GraphError

DIRECTIONS = ("denoising", "noising")


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
        if self.direction is not None and self.direction not in DIRECTIONS:
            raise CircuitsError(f"unknown direction {self.direction!r}: expected denoising or noising")

    def measure(
        self, model: "circuits.Model", pairs: "circuits.PromptPairs", metric: Any, **options: Any
    ) -> "circuits.patching.Effects":
        """Patch them. Raises GraphError for names that the model lacks."""
        direction: Any = self.direction or ("noising" if self.paths else "denoising")
        if self.paths:
            paths = [names_of(path) for path in self.paths]
            return circuits.patch_path(
                model, pairs, metric, paths, freeze_mlps=self.freeze_mlps, direction=direction, **options
            )
        if self.edges is not None:
            edges = None if self.edges.strip() == "all" else names_of(self.edges)
            if edges == []:
                raise GraphError("there are no edges to patch: name some, such as 'm0->m1,a0.h1->logits', or all")
            return circuits.patch_edges(model, pairs, metric, edges, direction=direction, **options)
        nodes = names_of(self.nodes or "nodes")
        check_names(model, nodes)
        return circuits.patch_nodes(model, pairs, metric, nodes, direction=direction, **options)


def check_names(model: "circuits.Model", names: Sequence[str]) -> None:
    """Raise GraphError, with the groups that there are, for names of which one is no node, site or group of the model."""
    from circuits.patching.engine.sites import GROUPS, find_sites

    try:
        find_sites(model, names)
    except GraphError as error:
        if "is not a node" not in str(error):
            raise
        raise GraphError(f"{error}; or one of the groups {', '.join(GROUPS)}") from None
