"""Metrics by the names that the command line has for them; nothing heavy is imported before one is made."""

from typing import TYPE_CHECKING

from circuits.errors import CircuitsError

if TYPE_CHECKING:
    from circuits.tasks.metrics import Metric, Relative

_SPELLED = {"kl_divergence": "kl"}
"""Metrics that have a shorter name on the command line."""
_WHOLE = {short: name for name, short in _SPELLED.items()}


def metric_names() -> tuple[str, ...]:
    """The names of all metrics, as the command line spells them."""
    from circuits.tasks.metrics import METRICS

    return tuple(_SPELLED.get(name, name) for name in METRICS)


def check_metric(name: str) -> None:
    """Raise CircuitsError for a name that is no metric."""
    if name not in metric_names():
        raise CircuitsError(f"unknown metric {name!r}: there are {', '.join(metric_names())}")


def has_gradient(name: str) -> bool:
    """Whether a metric has a gradient by the logits."""
    from circuits.tasks.metric import Metric
    from circuits.tasks.metrics import METRICS

    metric = METRICS[_WHOLE.get(name, name)]
    return not isinstance(metric, Metric) or metric.differentiable


def metric_of(name: str) -> "Metric | Relative":
    """The metric of that name; `kl` compares with the model's own answer on the clean prompts that a function works on."""
    from circuits.tasks.metrics import METRICS

    check_metric(name)
    return METRICS[_WHOLE.get(name, name)]
