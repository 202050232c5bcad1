"""What a lens read: numbers and top tokens of every row (a residual stream or nodes) at every position."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result

RowKind = Literal["residual", "middle", "nodes"]
NUMBERS = ("entropy", "cross_entropy", "divergence", "rank", "probability", "logit")


@dataclasses.dataclass(frozen=True, eq=False)
class Lens(Result, format="circuits-lens"):
    """Distributions over tokens by row and position. At pads every number is exactly 0.

    `kinds` says what a row is. "residual" and "middle" rows are the residual stream before a layer (`resid3`; the last one
    is the model's own output) and between its attention and its MLP (`mid3`), read as the model reads its last one: with
    the final norm at its own scale, biases and logit soft cap. "nodes" rows are what nodes wrote, with the final norm's
    scale frozen to the run's and without biases and cap: such logits are summands of the model's, and their softmax is not
    a prediction of the model's but says what a node promotes by itself.
    """

    model: str
    weights_sha256: str
    rows: tuple[str, ...]
    kinds: tuple[RowKind, ...]
    tuned: bool
    """Whether residual rows were read through a tuned lens."""
    answered: bool
    """Whether answers were given."""
    ids: Int[Tensor, "prompt position"]
    mask: Bool[Tensor, "prompt position"]
    """False at pads."""
    targets: Int[Tensor, "prompt position"]
    """The token that `rank`, `probability` and `logit` are about: the answer of the prompt where answers were given, else
    the next token, and at the last token what the model itself puts first."""
    followed: Bool[Tensor, "prompt position"]
    """Where there is a next token, which `cross_entropy` is about; after the last token it is the answer, where given."""
    entropy: Float[Tensor, "row prompt position"]
    """In nats."""
    cross_entropy: Float[Tensor, "row prompt position"]
    """Minus the log-probability of the next token, in nats; 0 where none follows."""
    divergence: Float[Tensor, "row prompt position"]
    """KL(final ‖ lens) in nats, as in Belrose et al. 2023: 0 = the model's own output."""
    rank: Int[Tensor, "row prompt position"]
    """How many tokens come before the target; 0 = it is the top one, as in `top_ids`, where of equal ones the earlier id
    comes first."""
    probability: Float[Tensor, "row prompt position"]
    """The target's."""
    logit: Float[Tensor, "row prompt position"]
    """The target's."""
    top_ids: Int[Tensor, "row prompt position top"]
    """Most likely tokens, best first."""
    top_probabilities: Float[Tensor, "row prompt position top"]
    depths: Int[Tensor, "prompt position"]
    """Prediction depth: the least number of layers after which every residual row has the last one's top token. 0 = the
    embedding already says it, n_layers = only the last layer brings it. It looks at those residual rows that were read, so
    read the last one too. 0 at pads and where there are none."""
    words: Mapping[int, str]
    """Text of every token that is named here."""

    def __post_init__(self) -> None:
        shape = (len(self.rows), *self.ids.shape)
        fits = all(getattr(self, name).shape == shape for name in NUMBERS)
        same = all(getattr(self, name).shape == self.ids.shape for name in ("mask", "targets", "followed", "depths"))
        if not fits or not same or self.top_ids.shape[:3] != shape or self.top_ids.shape != self.top_probabilities.shape:
            raise CircuitsError(
                f"a lens of {len(self.rows)} rows and {tuple(self.ids.shape)} tokens has arrays of other shapes"
            )
        if len(self.kinds) != len(self.rows) or not self.rows or not self.top_ids.shape[3]:
            raise CircuitsError("a lens needs a row, as many kinds as rows, and a top token")

    def word(self, token: int) -> str:
        """The text of a token."""
        return self.words.get(token, str(token))

    def columns(self, prompt: int = 0) -> list[int]:
        """The columns of a prompt that are no pads. Raises CircuitsError for a prompt that there is not."""
        if not 0 <= prompt < len(self.ids):
            raise CircuitsError(f"there is no prompt {prompt}: the lens has {len(self.ids)}, counted from 0")
        return self.mask[prompt].nonzero()[:, 0].tolist()

    def row(self, name: str) -> int:
        """The place of a row. Raises CircuitsError for one that was not read."""
        if name not in self.rows:
            raise CircuitsError(f"{name!r} was not read; there are {', '.join(self.rows)}")
        return self.rows.index(name)

    def mean(self, number: str) -> Float[Tensor, " row"]:
        """A number of each row, averaged over all tokens (cross-entropy: over those that another one follows)."""
        if number not in NUMBERS:
            raise CircuitsError(f"no number {number!r}: there are {', '.join(NUMBERS)}")
        counted = self.mask & self.followed if number == "cross_entropy" else self.mask
        return (getattr(self, number).double() * counted).sum(dim=(1, 2)) / counted.sum().clamp(min=1)

    @property
    def summary(self) -> str:
        """What was read, and the first prompt's last token in the last row."""
        column = self.columns(0)[-1]
        top, chance = self.word(int(self.top_ids[-1, 0, column, 0])), float(self.top_probabilities[-1, 0, column, 0])
        kind = "tuned lens" if self.tuned else "logit lens"
        read = f"{len(self.rows)} rows of {int(self.mask.sum()):,} tokens"
        return f"{self.model}, {kind}, {read}: at the end {self.rows[-1]} says {top!r} ({chance:.1%})."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a prompt, token (`position` counts from 0 in its prompt) and row of the lens; no row for pads.
        `cross_entropy` is missing where no token follows."""
        lines = []
        for prompt in range(len(self.ids)):
            for position, column in enumerate(self.columns(prompt)):
                place = {"prompt": prompt, "position": position, "token": self.word(int(self.ids[prompt, column]))}
                place["depth"] = int(self.depths[prompt, column])
                place["target"] = self.word(int(self.targets[prompt, column]))
                for row, name in enumerate(self.rows):
                    lines.append({**place, "row": name, "kind": self.kinds[row], **self._numbers(row, prompt, column)})
        table = pd.DataFrame(lines)
        return table.astype({"cross_entropy": "Float64"})

    def _numbers(self, row: int, prompt: int, column: int) -> dict[str, Any]:
        at = (row, prompt, column)
        numbers: dict[str, Any] = {name: getattr(self, name)[at].item() for name in NUMBERS}
        if not self.followed[prompt, column]:
            numbers["cross_entropy"] = None
        pairs = zip(self.top_ids[at].tolist(), self.top_probabilities[at].tolist(), strict=True)
        for place, (token, probability) in enumerate(pairs, 1):
            numbers |= {f"top{place}": self.word(token), f"p{place}": probability}
        return numbers
