"""What `circuits discover` asks: how a circuit is searched for."""

import dataclasses
from typing import Any

import circuits
from circuits.cli.errors import check_at_least
from circuits.cli.prompts import check_metric, has_gradient
from circuits.errors import CircuitsError

SPELLED = {
    "method": "--method",
    "verify": "--verify",
    "steps": "--steps",
    "threshold": "--threshold",
    "heads": "--level heads",
    "neurons": "--level neurons",
}
"""What the command line calls the options of a search."""
_VALUES = {"steps": "{} steps", "threshold": "threshold {:g}"}
"""How the values of a method's options read in a heading."""


def method_named(name: str | None) -> Any:
    """The search method of that name; without one, the default."""
    from circuits.search.methods.table import DEFAULT, find_method

    return find_method(DEFAULT if name is None else name)


def level_named(name: str) -> Any:
    """What edges run between. Raises CircuitsError for a name that is none."""
    from circuits.search.methods.method import LEVELS

    if name not in LEVELS:
        raise CircuitsError(f"unknown level {name!r}: expected {' or '.join(LEVELS)}")
    return name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How a circuit is searched for."""

    method: Any
    """A record of `circuits.search.methods.table.METHODS`."""
    level: Any
    edges: int
    steps: int | None
    threshold: float | None
    verify: bool
    random_circuits: int
    minimality: bool = True

    def check(self, metric: str | None) -> None:
        """Raise CircuitsError where options are wrong or contradict each other; needs no model."""
        from circuits.search.methods.table import check_fit

        check_at_least("--edges", self.edges, 1)
        check_at_least("--random-circuits", self.random_circuits, 0)
        if self.steps is not None:
            check_at_least("--steps", self.steps, 1)
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise CircuitsError(f"--threshold is {self.threshold:g}; expected nats above 0")
        check_fit(self.method, level=self.level, verify=self.verify, given=self.given, spelled=SPELLED)
        if metric is not None:
            check_metric(metric)
            if self.method.gradient and not has_gradient(metric):
                name = self.method.name
                raise CircuitsError(f"--metric {metric} has no gradient, which --method {name} takes: choose another")

    def check_model(self, model: "circuits.Model") -> None:
        """Raise CircuitsError where more edges are asked for than the model's graph has."""
        most = model.graph(neurons=self.neurons).edge_count
        if self.edges > most:
            raise CircuitsError(f"--edges is {self.edges:,}; the graph has {most:,}")

    @property
    def given(self) -> dict[str, int | float | None]:
        """What methods take, where the command line says it."""
        return {"steps": self.steps, "threshold": self.threshold}

    @property
    def neurons(self) -> bool:
        """Whether single neurons stand in place of MLPs."""
        return self.level == "neurons"

    def run(
        self,
        model: "circuits.Model",
        pairs: "circuits.PromptPairs",
        metric: Any,
        held_out: "circuits.PromptPairs",
        **options: Any,
    ) -> "circuits.search.Discovery":
        """Search on some pairs, judge on others."""
        how: dict[str, Any] = {
            name: getattr(self, name) for name in ("edges", "neurons", "verify", "random_circuits", "minimality")
        }
        how |= {**self.given, "held_out": held_out}
        return circuits.discover(model, pairs, metric, method=self.method.name, **how, **options)

    def describe(self) -> str:
        """The method in words."""
        values = {name: own if self.given[name] is None else self.given[name] for name, own in self.method.options.items()}
        more = "".join(f" ({_VALUES[name].format(value)})" for name, value in values.items() if value is not None)
        more += f" on {self.method.measures}" if self.method.measures else ""
        return f"{self.method.name}{more}{', then exact patching' if self.verify else ''}"
