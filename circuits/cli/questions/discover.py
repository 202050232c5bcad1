"""What `circuits discover` asks: how a circuit is searched for."""

import dataclasses
import re
from typing import Any

import circuits
from circuits.cli.errors import check_at_least
from circuits.cli.metrics import check_metric, has_gradient
from circuits.errors import CircuitsError, shown

COUNT = 96
"""Pairs of a task, unless the command line says how many; half of them are searched on. On fewer a circuit of many edges is
fitted to the prompts searched on (docs/measured.md)."""
SPELLED = {
    "method": "--method",
    "verify": "--verify",
    "steps": "--steps",
    "threshold": "--threshold",
    "heads": "--level heads",
    "neurons": "--level neurons",
    "roles": "--roles",
    "by": "--by",
}
"""What the command line calls the options of a search."""
_VALUES = {"steps": "{} steps", "threshold": "threshold {:g}"}
"""How the values of a method's options read in a heading."""


def size_named(text: str | None) -> tuple[int | None, float | None]:
    """How many edges, as a number or as a share of all; neither where nothing is said. Raises CircuitsError for what is no
    size."""
    if text is None:
        return None, None
    whole = re.fullmatch(r"-?[0-9]{1,15}", text.strip().replace(",", ""))
    part = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]*)?|\.[0-9]+)\s*%", text.strip())
    if whole:
        check_at_least("--edges", int(whole[0]), 1)
        return int(whole[0]), None
    if part and 0 < float(part[1]) <= 100:
        return None, float(part[1]) / 100
    raise CircuitsError(
        f"--edges is {shown(text)}: expected how many edges, 1 or more, or a share of all up to 100%, such as 2%"
    )


def minimality_named(text: str | None, no_minimality: bool = False) -> Any:
    """Of how many nodes it is asked if they are needed, as the library takes it. Raises CircuitsError for what is no such
    number, and for both options that say so."""
    if text is not None and no_minimality:
        raise CircuitsError(f"--no-minimality and --minimality {shown(text)} are two answers to one question: give one")
    if text is None:
        return not no_minimality
    word = text.strip()
    if word in ("none", "all"):
        return {"none": False, "all": "all"}[word]
    if re.fullmatch("[0-9]{1,9}", word):
        return int(word)
    raise CircuitsError(f"--minimality is {shown(text)}: expected all, none, or how many nodes")


def level_named(name: str) -> Any:
    """What edges run between. Raises CircuitsError for a name that is none."""
    from circuits.search.methods.method import LEVELS

    if name not in LEVELS:
        raise CircuitsError(f"unknown level {name!r}: expected {' or '.join(LEVELS)}")
    return name


def level_with_roles(level: Any, roles: bool) -> Any:
    """The level, which is that of roles where they are asked for. Raises CircuitsError where single neurons are, too."""
    if roles and level == "neurons":
        raise CircuitsError("--roles goes with whole MLPs, not with --level neurons")
    return "roles" if roles else level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How a circuit is searched for."""

    name: str | None
    """Of the method; None: the default, or what takes its place."""
    level: Any
    size: str | None
    """How many edges, in words of the command line."""
    by: Any
    steps: int | None
    threshold: float | None
    verify: bool
    random_circuits: int
    minimality: Any = True
    """Of how many nodes it is asked if they are needed, as the library takes it."""
    edges: int = 0
    """How many edges that is in the model's graph, once that is known."""

    @property
    def method(self) -> Any:
        """A record of `circuits.search.methods.table.METHODS`."""
        from circuits.search.methods.table import method_for

        return method_for(self.name, level=self.level, verify=self.verify, by=self.by, given=self.given)

    def check(self, metric: str | None) -> None:
        """Raise CircuitsError where options are wrong or contradict each other; needs no model."""
        from circuits.search.methods.table import check_fit

        size_named(self.size)
        check_at_least("--random-circuits", self.random_circuits, 0)
        if self.steps is not None:
            check_at_least("--steps", self.steps, 1)
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise CircuitsError(f"--threshold is {self.threshold:g}; expected nats above 0")
        check_fit(self.method, level=self.level, verify=self.verify, by=self.by, given=self.given, spelled=SPELLED)
        if metric is not None:
            check_metric(metric)
            if self.method.gradient and not has_gradient(metric):
                name = self.method.name
                raise CircuitsError(f"--metric {metric} has no gradient, which --method {name} takes: choose another")

    def sized(self, model: "circuits.Model", roles: Any = None) -> "Search":
        """The same with a number of edges, in a graph with these roles of tokens, if any. Raises CircuitsError where more are
        asked for than the model's graph has."""
        from circuits.search.searching import usual_size

        graph, (edges, share) = model.graph(neurons=self.neurons, roles=roles), size_named(self.size)
        most = graph.edge_count
        if edges is None:
            edges = usual_size(graph, verify=self.verify) if share is None else max(1, round(share * most))
        if edges > most:
            raise CircuitsError(f"--edges is {edges:,}; the graph has {most:,}")
        return dataclasses.replace(self, edges=edges)

    def sized_between(self, model: "circuits.Model", pairs: "circuits.PromptPairs") -> "Search":
        """The same in the graph of edges between roles of tokens of these pairs. Raises PromptError where they have none."""
        from circuits.tasks.roles import required_roles

        known = required_roles(pairs, causal=model.weights.causal).roles
        return self.sized(model, None if known is None else known.roles)

    @property
    def given(self) -> dict[str, int | float | None]:
        """What methods take, where the command line says it."""
        return {"steps": self.steps, "threshold": self.threshold}

    @property
    def neurons(self) -> bool:
        """Whether single neurons stand in place of MLPs."""
        return self.level == "neurons"

    @property
    def roles(self) -> bool:
        """Whether edges run between roles of tokens."""
        return self.level == "roles"

    def searching(self) -> Any:
        """The same as the library takes it, without a judge."""
        from circuits.search.searching import Searching

        names = ("edges", "by", "neurons", "roles", "steps", "threshold", "verify")
        return Searching(method=self.name, **{name: getattr(self, name) for name in names})

    def run(
        self,
        model: "circuits.Model",
        pairs: "circuits.PromptPairs",
        metric: Any,
        held_out: "circuits.PromptPairs",
        **options: Any,
    ) -> "circuits.search.Discovery":
        """Search on some pairs, judge on others."""
        names = ("edges", "by", "neurons", "roles", "verify", "random_circuits", "minimality")
        how: dict[str, Any] = {name: getattr(self, name) for name in names}
        how |= {**self.given, "held_out": held_out}
        return circuits.discover(model, pairs, metric, method=self.name, **how, **options)

    def describe(self, circuit: "circuits.Circuit | None" = None) -> str:
        """The method in words; of a circuit by another one, with which this one only began, that."""
        method = self.method
        began = circuit is not None and method.proposes and circuit.metadata.get("method") != method.label
        if began:
            method = self._first_method()
        values = {name: own if self.given[name] is None else self.given[name] for name, own in method.options.items()}
        more = "".join(f" ({_VALUES[name].format(value)})" for name, value in values.items() if value is not None)
        more += f" on {method.measures}" if method.measures else ""
        more += f", those that {self.by} the metric" if self.by == "support" else ""
        why = circuit.metadata.get("unrefined") if circuit is not None and began else None
        more += f", unrefined: {why}" if why else ""
        return f"{method.name}{more}{', then exact patching' if self.verify else ''}"

    def _first_method(self) -> Any:
        from circuits.search.methods.table import METHODS, OTHERWISE

        return METHODS[OTHERWISE]
