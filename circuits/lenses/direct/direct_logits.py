"""A logit, or a difference of two, taken apart: the result, its tables and its file."""

import dataclasses
import re

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, GraphError
from circuits.files.results import Result
from circuits.statistics import standard_error

_ROW = re.compile(r"(?:a(?P<attention>\d+)|m(?P<mlp>\d+))\.?(?P<part>.*)", re.ASCII)


@dataclasses.dataclass(frozen=True, eq=False)
class DirectLogits(Result, format="circuits-direct-logits"):
    """What each node writes to the answer's logit, less what it writes to the distractor's, in nats: positive = it speaks
    for the answer.

    Rows: `input` (token embedding), `positions` (learned ones), heads `a0.h1`, MLPs `m3` with their bias, and where MLPs are
    split neurons `m3.n7`, `m3.rest` (all other neurons) and `m3.bias`; biases `a0.bias` (attention's output) and `bias` (final
    norm and unembedding). They sum to `total`.
    """

    model: str
    rows: tuple[str, ...]
    values: Float[Tensor, "row prompt"]
    total: Float[Tensor, " prompt"]
    """The logit (difference) that the model computes; before the cap where logits are capped."""
    answers: tuple[str, ...]
    """The answer's text, one a prompt; likewise the distractor's (empty: none, the answer's logit alone)."""
    distractors: tuple[str, ...]
    capped: bool
    """Whether the model caps its logits, so that the rows sum to the logit before its cap."""
    tokens: tuple[tuple[str, ...], ...]
    """The text of every column, one tuple a prompt; "" at pads."""
    sources: Float[Tensor, "head prompt position"] | None = None
    """Each head by the column that it attends to, heads in the order of `heads`; sums over columns to the head."""

    def __post_init__(self) -> None:
        prompts = len(self.total)
        shapes = [tuple(self.values.shape) == (len(self.rows), prompts), len(self.answers) == len(self.tokens) == prompts]
        shapes += [len(self.distractors) in (0, prompts), len({len(row) for row in self.tokens}) == 1]
        if self.sources is not None:
            shapes.append(tuple(self.sources.shape) == (len(self.heads), prompts, len(self.tokens[0])))
        if not all(shapes) or not self.rows or len(set(self.rows)) < len(self.rows):
            raise CircuitsError("rows, values, prompts and sources of a logit's contributions do not fit each other")

    @property
    def heads(self) -> tuple[str, ...]:
        """The rows that are heads."""
        return tuple(row for row in self.rows if row[0] == "a" and ".h" in row)

    @property
    def mean(self) -> Float[Tensor, " row"]:
        """Mean over prompts."""
        return self.values.mean(dim=1)

    @property
    def standard_error(self) -> Float[Tensor, " row"]:
        """Standard error of the mean over prompts; NaN for one prompt."""
        return standard_error(self.values)

    @property
    def summary(self) -> str:
        """The logit, and the nodes that write most of it."""
        most = ", ".join(f"{row} {value:+.3g}" for row, value in self.top(4))
        what = "logit difference" if self.distractors else "logit"
        return f"{self.model}: {what} {float(self.total.mean()):.4g}, mean of {len(self.total)}; most from {most}."

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k rows with the largest mean by size, largest first; of equal ones the earlier."""
        mean = self.mean
        return [(self.rows[row], float(mean[row])) for row in mean.abs().argsort(descending=True, stable=True)[:k].tolist()]

    def by_source(self, head: str) -> Float[Tensor, "prompt position"]:
        """What a head takes from each column. Raises GraphError for a head that is not there, or sources not asked for."""
        if self.sources is None:
            raise GraphError("contributions by source position were not computed: ask for them with positions=True")
        if head not in self.heads:
            raise GraphError(f"no head {head!r} among the rows: heads are named like {self.heads[0]}")
        return self.sources[self.heads.index(head)]

    def to_dataframe(self) -> pd.DataFrame:
        """One row a node: name, kind (input, positions, head, mlp, neuron, rest, bias), layer, mean and standard error."""
        kinds = [_kind(row) for row in self.rows]
        columns = {"row": list(self.rows), "kind": [kind for kind, _ in kinds]}
        layers = pd.array([layer for _, layer in kinds], dtype="Int64")
        return pd.DataFrame(
            {**columns, "layer": layers, "mean": self.mean.tolist(), "standard_error": self.standard_error.tolist()}
        )

    def sources_dataframe(self) -> pd.DataFrame:
        """One row a head, prompt and column that is no pad: what the head takes from there. Raises GraphError where sources
        were not asked for."""
        parts = [(head, self.by_source(head).tolist()) for head in self.heads]
        if self.sources is None:
            raise GraphError("contributions by source position were not computed: ask for them with positions=True")
        rows = [
            {"head": head, "prompt": prompt, "position": position, "token": token, "contribution": values[prompt][position]}
            for head, values in parts
            for prompt, tokens in enumerate(self.tokens)
            for position, token in enumerate(tokens)
            if token
        ]
        return pd.DataFrame(rows, columns=["head", "prompt", "position", "token", "contribution"])


def _kind(row: str) -> tuple[str, int | None]:
    """A row's kind and layer."""
    found = _ROW.fullmatch(row)
    if found is None:
        return row, None
    layer, part = int(found["attention"] or found["mlp"]), found["part"]
    if part in ("rest", "bias"):
        return part, layer
    return ("head" if found["attention"] else "neuron" if part else "mlp"), layer
