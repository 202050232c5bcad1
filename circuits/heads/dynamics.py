"""How heads come about in training: measures at recorded steps, and the step at which they change (Olsson et al. 2022)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.files.results import Result
from circuits.graph import Node
from circuits.heads.composition import composition_scores
from circuits.heads.phase_change import PhaseChange, find_phase_change
from circuits.heads.scores import score_heads
from circuits.heads.text_loss import next_token_losses, predicted, text_batches
from circuits.models import Model, TokenBatch, load_model
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.tasks.repeats import repeated_tokens

if TYPE_CHECKING:
    import pandas

EARLY, LATE = range(50, 51), range(500, 501)
"""The positions of Olsson et al. for the in-context-learning score."""


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """One model at one step of its training: what every head does, and losses in nats."""

    step: int
    prefix_matching: Float[Tensor, "layer head"]
    previous_token: Float[Tensor, "layer head"]
    k_composition: Float[Tensor, "layer head layer head"]
    """As `composition_scores`: writer, then reader, less the mean of random matrices."""
    losses: Mapping[str, float]
    """`first_loss` and `second_loss`: of random tokens said for the first and the second time. With text, `loss` of its
    tokens and `icl_score`: loss at late positions minus loss at early ones (negative = the context helps)."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingCurves(Result, format="circuits-training-curves"):
    """What was measured of one model through its training, a number a recorded step.

    `prefix_matching` and `previous_token`: the highest head's, at each step. `k_composition`: of `previous_token_head`
    into `induction_head`, less the mean of random matrices (missing where the model has one layer). `first_loss`,
    `second_loss`, and with text `loss` and `icl_score`, in nats, as in `Snapshot`.
    """

    model: str
    steps: tuple[int, ...]
    curves: Mapping[str, Float[Tensor, " record"]]
    induction_head: str
    """The head of the highest prefix matching at the last step."""
    previous_token_head: str
    """The head of the highest previous-token score at the last step, in a layer before the induction head's if any is."""

    def __post_init__(self) -> None:
        for name in (self.induction_head, self.previous_token_head):
            Node.parse(name)
        if "prefix_matching" not in self.curves:
            raise CircuitsError(f"the curves of {self.model} lack prefix_matching; there are {', '.join(self.curves)}")
        for name, values in self.curves.items():
            if len(values) != len(self.steps):
                raise CircuitsError(f"{name} has {len(values)} values for {len(self.steps)} steps")

    @classmethod
    def of(cls, model: str, snapshots: Sequence[Snapshot]) -> "TrainingCurves":
        """The curves of one model's snapshots, in the order of their steps. Raises CircuitsError where there are none, two
        of one step, or models of different shapes."""
        taken = sorted(snapshots, key=lambda one: one.step)
        steps, shapes = [one.step for one in taken], {tuple(one.prefix_matching.shape) for one in taken}
        if not taken or len(set(steps)) < len(steps) or len(shapes) > 1 or len({frozenset(one.losses) for one in taken}) > 1:
            raise CircuitsError(f"no snapshots of one model at different steps: steps {steps[:8]}, layers and heads {shapes}")
        last = taken[-1]
        reader = _highest(last.prefix_matching)
        writer = _highest(last.previous_token[: reader[0] or None])
        values = {name: [float(getattr(one, name).max()) for one in taken] for name in ("prefix_matching", "previous_token")}
        if reader[0]:
            values["k_composition"] = [float(one.k_composition[(*writer, *reader)]) for one in taken]
        values |= {name: [one.losses[name] for one in taken] for name in last.losses}
        curves = {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in values.items()}
        return cls(model, tuple(steps), curves, str(Node("head", *reader)), str(Node("head", *writer)))

    def phase_change(self, *, low: float = 0.1, high: float = 0.6) -> PhaseChange | None:
        """The phase change by prefix matching, as `find_phase_change` finds it; None where there is none."""
        return find_phase_change(self.steps, self.curves["prefix_matching"].tolist(), low=low, high=high)

    @property
    def summary(self) -> str:
        """Where prefix matching begins and ends, and the phase change."""
        matching = self.curves["prefix_matching"]
        change = self.phase_change() if len(self.steps) >= 3 else None
        when = "no phase change" if change is None else f"phase change at step {change.step:,.0f}"
        went = f"prefix matching of the best head from {float(matching[0]):.2f} to {float(matching[-1]):.2f}"
        return f"{self.model}, {len(self.steps)} steps: {went}, {when}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a recorded step, a column a curve."""
        import pandas

        return pandas.DataFrame({"step": list(self.steps), **{name: values.tolist() for name, values in self.curves.items()}})


def _highest(scores: Float[Tensor, "layer head"]) -> tuple[int, int]:
    return divmod(int(scores.argmax()), scores.shape[1])


def take_snapshot(
    model: Model,
    step: int,
    *,
    text: TokenBatch | None = None,
    early: range = EARLY,
    late: range = LATE,
    sequences: int = 10,
    seed: int = 0,
    budget: int = BUDGET,
) -> Snapshot:
    """Measure one model of a training run.

    Prefix matching, on `sequences` prompts of repeated random tokens, and previous token, on the text where there is one,
    as in `score_heads`; `early` and `late`: positions of the text whose losses the in-context-learning score compares.
    `budget`: bytes of runs and logits on the text that are held at once, beside the run of one prompt.
    Raises NonFiniteError for NaN and infinity, PromptError for text without these positions.
    """
    try:
        with torch.no_grad():
            scores = score_heads(model, sequences=sequences, seed=seed, text=text).scores
            repeats, length = repeated_tokens(model, count=sequences, copies=2, seed=seed)
            losses = {} if text is None else _text_losses(model, text, early, late, budget)
            values, _ = token_losses(model, repeats, budget=budget)
            composed = composition_scores(model).k
    except NonFiniteError as error:
        raise NonFiniteError(f"{model.name} at step {step}: {error}") from None
    losses["first_loss"] = float(values[:, :-length].mean())
    losses["second_loss"] = float(values[:, -length + 1 :].mean())  # the first of them nothing tells
    return Snapshot(step, scores["prefix_matching"], scores["previous_token"], composed, losses)


def token_losses(
    model: Model, tokens: TokenBatch, *, budget: int = BUDGET
) -> tuple[Float[Tensor, "prompt position_less_1"], Bool[Tensor, "prompt position_less_1"]]:
    """−log p of every token but a prompt's first, given those before it, in nats; and which of these are no pads."""
    parts = []
    for batch in text_batches(model.weights, model.prepare(tokens), budget=budget):
        run = forward(model.weights, batch, logits=False)
        parts.append(next_token_losses(model.weights, run.residuals[-1], batch, budget=budget).double().cpu())
    return torch.cat(parts), predicted(tokens).cpu()


def _text_losses(model: Model, text: TokenBatch, early: range, late: range, budget: int) -> dict[str, float]:
    values, counted = token_losses(model, text, budget=budget)
    places = text.positions[:, 1:].cpu()
    found = []
    for name, wanted in (("late", late), ("early", early)):
        here = counted & torch.isin(places, torch.tensor(list(wanted), dtype=torch.long))
        if not bool(here.any()):
            longest = int(text.mask.sum(dim=1).max())
            raise PromptError(f"no token of the text stands at {name}={wanted}; its longest row has {longest} tokens")
        found.append(float(values[here].mean()))
    return {"loss": float(values[counted].mean()), "icl_score": found[0] - found[1]}


def score_checkpoints(
    checkpoints: Mapping[int, Model | str | Path],
    *,
    text: TokenBatch | None = None,
    early: range = EARLY,
    late: range = LATE,
    sequences: int = 10,
    seed: int = 0,
    name: str | None = None,
    load: Callable[[str | Path], Model] = load_model,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> TrainingCurves:
    """Measure the checkpoints of a training run, one held at a time. The rest as in `take_snapshot`.

    Raises CircuitsError for checkpoints of different shapes, and what loading raises.

    Args:
        checkpoints: by step, a model or what `load` makes one of (a local directory, say).
        text: prompts for the loss and the scores on text (default: none).
        early: columns of a prompt that count as early, for the in-context score.
        late: columns that count as late.
        sequences: prompts of repeated random tokens.
        seed: that of the random tokens.
        name: what the run is called in the result.
        load: makes a model of what is no model.
        budget: bytes of runs and logits that are held at once, beside the run of one prompt.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    report = progress or silent
    snapshots: list[Snapshot] = []
    called = name
    for place, step in enumerate(sorted(checkpoints)):
        report("scoring checkpoints", place, len(checkpoints))
        given = checkpoints[step]
        model = given if isinstance(given, Model) else load(given)
        called = name or model.name
        where = {"early": early, "late": late, "sequences": sequences, "seed": seed, "budget": budget}
        snapshots.append(take_snapshot(model, step, text=text, **where))
    report("scoring checkpoints", len(checkpoints), len(checkpoints))
    return TrainingCurves.of(called or "model", snapshots)
