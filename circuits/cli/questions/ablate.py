"""What `circuits ablate` asks: which nodes are taken out, and how."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.questions.patch import check_names
from circuits.errors import CircuitsError

KINDS = ("zero", "mean", "resample", "noise", "optimal")
REPAIR_KINDS = ("zero", "mean", "resample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblateQuestion:
    """What is taken out, and how."""

    nodes: Sequence[str]
    kind: str
    freeze_patterns: bool
    each: bool
    self_repair: bool

    def check(self, positions: str | None) -> None:
        """Raise CircuitsError where the options contradict each other; needs no model."""
        if self.self_repair and positions is not None:
            raise CircuitsError("--self-repair takes out whole layers, at every position: leave out --positions")
        if not self.nodes and not self.self_repair:
            raise CircuitsError("name nodes to ablate, such as a0.h5 m2 or a group such as heads; or give --self-repair")
        if not self.nodes and (self.each or self.freeze_patterns):
            raise CircuitsError(f"{'--each' if self.each else '--freeze-patterns'} is about NODES: name some, such as a0.h5 m2")
        if self.kind not in KINDS:
            raise CircuitsError(f"unknown kind of ablation {self.kind!r}: expected {', '.join(KINDS)}")
        if self.self_repair and self.kind not in REPAIR_KINDS:
            raise CircuitsError(f"--self-repair ablates by {', '.join(REPAIR_KINDS)}, not by {self.kind}")

    def measure(
        self, model: "circuits.Model", pairs: "circuits.PromptPairs", metric: Any, progress: ProgressBars, **options: Any
    ) -> "circuits.patching.Ablation":
        """Take the nodes out. Raises GraphError for names that the model lacks."""
        import torch

        from circuits.patching.engine.sites import find_sites

        check_names(model, self.nodes)
        sets = [[site.name] for site in find_sites(model, self.nodes)] if self.each else [list(self.nodes)]
        options |= {"kind": self.kind, "freeze_patterns": self.freeze_patterns}
        if self.kind != "optimal":
            return circuits.ablate(model, pairs, metric, sets, progress=progress, **options)
        found: list[circuits.patching.Ablation] = []
        for place, one in enumerate(sets):  # each takes a while, so that progress is worth showing
            progress("finding optimal constants", place, len(sets))
            found.append(circuits.ablate(model, pairs, metric, [one], **options))
        progress("finding optimal constants", len(sets), len(sets))
        names = tuple(name for one in found for name in one.names)
        return dataclasses.replace(found[0], names=names, scores=torch.cat([one.scores for one in found]))

    def repair(
        self, model: "circuits.Model", pairs: "circuits.PromptPairs", progress: ProgressBars
    ) -> "list[circuits.patching.SelfRepair]":
        """The self-repair reports, of attention and of MLPs where there are some; none where none was asked for."""
        if not self.self_repair:
            return []
        parts = ["attention", "mlp"] if model.d_mlp else ["attention"]
        options: list[dict[str, Any]] = [{"part": part, "kind": self.kind} for part in parts]
        return [circuits.self_repair(model, pairs, progress=progress, **one) for one in options]
