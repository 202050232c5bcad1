"""Modules that have moved: an import by the old path gives the module at its new one, with a DeprecationWarning.

Where the room has a function of the module's name (`circuits.tasks.induction`, say), importing the path would put the module
in the function's place. For those a stand-in waits among the modules that are already imported: it looks names up in the new
module when they are asked for.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from types import ModuleType
from typing import Any

_WINGS = {
    "": {"graph.progress": "progress", "patching.bootstrap": "statistics"},
    "files.": {"graph.locking": "locking", "graph.plain": "plain", "graph.reading": "reading", "graph.results": "results"},
    "models.loading.": {
        "models.families": "families",
        "models.extract": "extract",
        "models.sources": "sources",
        "models.load": "load",
    },
    "models.planted.": {
        "models.planted_chain": "chain",
        "models.planted_induction": "induction",
        "models.planted_logic": "logic",
        "models.planted_parts": "parts",
        "models.planted_recall": "recall",
        "models.planted_tables": "tables",
        "models.planted_words": "words",
    },
    "tasks.library.": {
        "tasks.facts": "facts",
        "tasks.planted": "planted",
        "tasks.wording": "wording",
    },
    "tasks.sources.": {
        "tasks.readers": "readers",
        "tasks.conllu": "conllu",
        "tasks.corpus": "corpus",
        "tasks.known": "known",
    },
    "tasks.behavioural.": {
        "tasks.behaviour": "scores",
        "tasks.likelihood": "likelihood",
        "tasks.minimal_pairs": "minimal_pairs",
        "tasks.probing": "scoring",
    },
    "heads.attention.": {
        "heads.tracing": "tracing",
        "heads.maxflow": "max_flow",
        "heads.words": "words",
        "heads.labels": "labels",
        "heads.attention_probe": "attention_probe",
    },
    "heads.weight_tables.": {
        "heads.all_tables": "all_tables",
        "heads.bugs": "bugs",
        "heads.embedded": "embedded",
        "heads.ranking": "ranking",
        "heads.virtual": "virtual",
    },
    "lenses.neurons.": {
        "lenses.activations": "activations",
        "lenses.alignment": "alignment",
        "lenses.clamping": "clamping",
        "lenses.contexts": "contexts",
        "lenses.found": "places",
        "lenses.highest": "highest",
        "lenses.listing": "listing",
        "lenses.memories": "memories",
        "lenses.triggers": "triggers",
        "lenses.updates": "updates",
    },
    "lenses.direct.": {
        "lenses.direct_logits": "direct_logits",
        "lenses.contributions": "contributions",
        "lenses.questions": "targets",
    },
    "lenses.": {
        "lenses.tuning": "training",
    },
    "patching.engine.": {
        "patching.base": "base",
        "patching.changes": "change",
        "patching.directions": "directions",
        "patching.plan": "plan",
        "patching.reading": "reading",
        "patching.running": "variant_pass",
        "patching.sites": "sites",
        "patching.streams": "stream",
        "patching.sweep": "sweep",
    },
    "patching.subgraphs.": {
        "patching.circuit_pass": "circuit_pass",
        "patching.members": "members",
        "patching.moves": "differences",
        "patching.outside": "outside",
        "patching.subgraph": "subgraph",
    },
    "patching.ablation.": {
        "patching.expansion": "expansion",
        "patching.removal": "layers",
        "patching.terms": "terms",
    },
    "patching.tracing.": {
        "patching.attention_trace": "attention_trace",
        "patching.attention_tracing": "attention",
        "patching.causal_tracing": "causal",
        "patching.facts_tracing": "facts",
        "patching.knockout": "knockout",
        "patching.traces": "results",
    },
    "patching.": {
        "patching.path_patching": "paths",
    },
    "search.acdc.": {
        "search.acdc_pass": "variants",
        "search.acdc_plan": "plan",
        "search.acdc_state": "state",
        "search.slots": "slots",
    },
    "search.methods.": {
        "search.gates": "gates",
        "search.pruning": "pruning",
        "search.shrinking": "shrinking",
    },
    "search.judging.": {
        "search.curves": "curves",
        "search.nulls": "nulls",
        "search.verdict": "verdict",
    },
    "search.mechanisms.": {
        "search.factual_recall": "recall",
        "search.induction": "induction",
        "search.recall_evidence": "recall_evidence",
        "search.induction_evidence": "induction_evidence",
    },
    "plots.graphs.": {
        "plots.circuit": "circuit",
        "plots.layout": "layout",
        "plots.paths": "paths",
    },
    "plots.heads.": {
        "plots.patterns": "patterns",
        "plots.tables": "tables",
        "plots.training": "training",
        "plots.tracing": "tracing",
    },
    "plots.lenses.": {
        "plots.lens": "lens",
        "plots.direct": "direct",
        "plots.memories": "memories",
    },
    "plots.patching.": {
        "plots.effects": "effects",
        "plots.losses": "losses",
        "plots.terms": "terms",
        "plots.traces": "traces",
    },
}
"""New package → old module → its new name there, all inside `circuits`."""

MOVED = {f"circuits.{old}": f"circuits.{wing}{new}" for wing, names in _WINGS.items() for old, new in names.items()}
"""Old path → new path."""

_LIBRARY = ("agreement", "docstring", "gendered_pronouns", "greater_than", "induction", "ioi")
BESIDE_FUNCTIONS = {
    "circuits.heads.skip_trigrams": "circuits.heads.weight_tables.skip_trigrams",
    "circuits.patching.self_repair": "circuits.patching.ablation.self_repair",
    **{f"circuits.search.{name}": f"circuits.search.judging.{name}" for name in ("compare", "evaluate", "roc")},
    **{f"circuits.tasks.{name}": f"circuits.tasks.library.{name}" for name in _LIBRARY},
}
"""Old path → new path, of modules that share a name with a function of their room."""


class _StandIn(ModuleType):
    """What an import of such a path finds."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what importlib asks of every module
            raise AttributeError(name)
        new = BESIDE_FUNCTIONS[self.__name__]
        warnings.warn(f"{self.__name__} has moved to {new}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(new), name)


class _OldPaths(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what stood at an old path. It is asked only after all other finders have found nothing."""

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """The spec of a path that has moved; None for any other."""
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module at its new path; warns."""
        new = MOVED[spec.name]
        # The frames between this one and the import statement are importlib's, which warnings pass over.
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        # What runs next writes the old spec into the module: the module's own is kept, to be put back.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Put the module's own spec back: it has run already."""
        module.__spec__ = module.__spec__.loader_state if module.__spec__ else None


def know_old_paths() -> None:
    """From now on, imports by old paths find the modules that have moved."""
    if not any(isinstance(finder, _OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(_OldPaths())
    for old in BESIDE_FUNCTIONS:
        sys.modules.setdefault(old, _StandIn(old))
