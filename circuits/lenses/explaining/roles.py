"""Who explains, who simulates and who writes texts: functions, one's own or by name."""

from collections.abc import Callable, Sequence
from typing import Any

from circuits.errors import PromptError, shown
from circuits.lenses.explaining.authors import Author
from circuits.lenses.explaining.endpoint import Endpoint
from circuits.lenses.explaining.excerpts import Excerpt
from circuits.lenses.explaining.local_model import LocalModel
from circuits.lenses.explaining.rule_search import rule_explainer
from circuits.lenses.explaining.rules import rule_simulator
from circuits.models import load_model
from circuits.models.loading.sources import resolve

Explainer = Callable[[Sequence[Excerpt], float], str]
"""From excerpts with activations, and the activation that is 10, to an explanation in words."""
Simulator = Callable[[str, Sequence[str]], Sequence[float]]
"""From an explanation and the tokens of an excerpt to the expected activation at each token, from 0 to 10."""
RULE = "rule"


def check_role(name: str) -> None:
    """Raise PromptError, or EndpointError for an address and ModelError for a folder, where nobody has this name."""
    kind, _, rest = name.partition(":")
    if kind == "endpoint":
        Endpoint.parse(rest)
    elif kind == "model" and rest:
        resolve(rest)
    elif name != RULE:
        raise PromptError(f"{shown(name)} neither explains nor simulates: expected rule, model:DIR or endpoint:URL")


def roles(explainer: str | Explainer, simulator: str | Simulator) -> tuple[Explainer, Simulator]:
    """An explainer and a simulator by name (`rule`, `model:DIR`, `endpoint:URL`), or functions of one's own as they are; a
    model that does both is loaded once."""
    made = {name: _named(name) for name in dict.fromkeys((explainer, simulator)) if isinstance(name, str)}
    explain = made[explainer] if isinstance(explainer, str) else explainer
    simulate = made[simulator] if isinstance(simulator, str) else simulator
    explain = explain.explain if isinstance(explain, LocalModel | Endpoint) else explain or rule_explainer
    return explain, simulate.simulate if isinstance(simulate, LocalModel | Endpoint) else simulate or rule_simulator


def simulator_for(explainer: str | Explainer, simulator: str | Simulator | None) -> str | Simulator:
    """Who simulates where nobody is named: who explains, by name; a rule for functions of one's own."""
    if simulator is not None:
        return simulator
    return explainer if isinstance(explainer, str) else RULE


def explainer_and_author(explainer: str | Explainer, author: str | Author) -> tuple[Explainer, Author | None]:
    """Who explains and who writes texts, by name, or functions as they are; a model that does both is loaded once. None: the
    rule writes them, of a text's rows."""
    made = {name: _named(name) for name in dict.fromkeys((explainer, author)) if isinstance(name, str)}
    explain = made[explainer] if isinstance(explainer, str) else explainer
    explain = explain.explain if isinstance(explain, LocalModel | Endpoint) else explain or rule_explainer
    writes = made[author] if isinstance(author, str) else author
    return explain, writes.sentences if isinstance(writes, LocalModel | Endpoint) else writes


def role_name(role: Any) -> str:
    """How a result names who did it."""
    return role if isinstance(role, str) else getattr(role, "__name__", type(role).__name__)


def _named(name: str) -> LocalModel | Endpoint | None:
    """A model or a server; None for the rule, which needs neither."""
    check_role(name)
    kind, _, rest = name.partition(":")
    if kind == RULE:
        return None
    return Endpoint.parse(rest) if kind == "endpoint" else LocalModel(load_model(rest))
