"""Which heads answer multiple choice by a letter, and what of their queries, keys and values that takes."""

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.graph import Node
from circuits.heads.compression import Compression
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas

Kept = Literal["queries", "keys", "values"]
LEAST = 0.05
"""What a letter head does at least: its share of the logit difference, and of the gap that patching it brings back."""


@dataclasses.dataclass(frozen=True)
class LetterHead:
    """What one head does at the last token, by three measures, each with its 95 % interval over prompts."""

    head: str
    direct: Effect
    """What it writes to the right label's logit less another's, through the final norm as it was: nats."""
    patched: Effect
    """Share of the clean-corrupt gap that comes back when its output at the last token is that of the clean prompt."""
    item: Effect
    """Attention from the last token to the right item, at the token `at` places behind its label."""
    others: Effect
    """And to one of the other items, at the same place, on average."""
    more: Effect
    """Their difference."""
    label: Effect
    """Attention to the right label itself."""
    choice: Effect
    """Attention to the right choice's word."""
    at: int
    """Where behind a label the head tells the right item from the others most, 0: at the label itself; found on half of the
    prompts, `item`, `others` and `more` are of the other half."""

    def __post_init__(self) -> None:
        Node.parse(self.head)


@dataclasses.dataclass(frozen=True)
class KeptDimensions:
    """How few dimensions of a head's queries at the last token, or of its keys or values where it looks for each item, leave
    the answers' loss as it was, and what these dimensions tell apart. Shares of their variance are corrected for chance (0:
    none of it, 1: all); they may overlap, and are missing where nothing is kept."""

    head: str
    part: Kept
    dimensions: int
    d_head: int
    change: float
    """By how much the loss rises with this part alone in so many dimensions: nats."""
    variance: float
    """Share of the part's variance in these dimensions."""
    letter: float = dataclasses.field(metadata=stored(missing=True))
    """Share of what is kept that the label tells; of queries: the right one."""
    place: float = dataclasses.field(metadata=stored(missing=True))
    """Share that the place among the choices tells, first to last."""
    right: float = dataclasses.field(metadata=stored(missing=True))
    """Of keys and values: share that being the right item tells."""

    def __post_init__(self) -> None:
        Node.parse(self.head)


@dataclasses.dataclass(frozen=True, eq=False)
class LetterHeads(Result, format="circuits-letter-heads"):
    """All heads of a model, and of those that answer by a letter what they need."""

    model: str
    weights_sha256: str
    task: str
    prompts: int
    labels: int
    """How many choices a prompt has."""
    right: Effect
    """Share of prompts whose answer is the likeliest token, with Wilson's interval."""
    among: Effect
    """Share of prompts whose answer is the likeliest of the labels."""
    difference: Effect
    """The right label's logit less that of another label, nats, which what heads write directly is part of."""
    heads: tuple[LetterHead, ...]
    kept: tuple[KeptDimensions, ...] = ()
    held_out: int = 0
    """Prompts that losses with fewer dimensions are of: those that the dimensions are not from."""
    tolerance: float = 0.0
    loss: float = 0.0
    """The answers' loss on the held-out prompts, nats."""
    joint_loss: float = 0.0
    """And with all parts of all letter heads in their few dimensions at once."""
    compression: Compression | None = None
    """The smallest ranks of the letter heads' weights at which the answers' loss holds."""

    def __post_init__(self) -> None:
        if not self.heads:
            raise CircuitsError("letter heads of a model without heads")

    def is_letter_head(self, one: LetterHead) -> bool:
        """Whether all three say so: it writes the right letter more than another and its output brings the answer back, each by
        5 % or more with an interval above 0, and it looks at the right item more than at the others, surely."""
        writes = one.direct.low > 0 and one.direct.effect >= LEAST * self.difference.effect
        return writes and one.patched.low > 0 and one.patched.effect >= LEAST and one.more.low > 0

    @property
    def letter_heads(self) -> tuple[LetterHead, ...]:
        """Those that all three measures name, of largest direct effect first."""
        return tuple(sorted(filter(self.is_letter_head, self.heads), key=lambda one: -one.direct.effect))

    @property
    def summary(self) -> str:
        """How often the model is right, which heads write the letter, and how few dimensions they need."""
        found = self.letter_heads
        said = f"{self.model} answers {self.right.effect:.0%} of {self.prompts} questions ({self.task}) with the right letter"
        said += f", {self.among.effect:.0%} with the likeliest of {self.labels} letters; chance {1 / self.labels:.0%}. "
        if not found:
            return f"{said}No head writes the right letter, brings the answer back and looks at the right item."
        names = ", ".join(one.head for one in found)
        share = sum(one.direct.effect for one in found) / self.difference.effect
        said += f"{counted(len(found), 'head')} ({names}) by all three measures, with {share:.0%} of the logit difference. "
        if self.kept:
            dimensions = {part: [one.dimensions for one in self.kept if one.part == part] for part in get_args(Kept)}
            few = ", ".join(f"{part} in {_span(values)}" for part, values in dimensions.items() if values)
            said += f"At constant loss (to {self.tolerance:g} nats each) they keep {few} of {self.kept[0].d_head} dimensions; "
            said += f"all at once the loss is {self.joint_loss:.3f} instead of {self.loss:.3f}."
        return said.strip()

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a head: head, letter (whether it is one), at (tokens behind the label), each measure with low and high."""
        import pandas

        rows = []
        for one in self.heads:
            row: dict[str, object] = {"head": one.head, "letter": self.is_letter_head(one), "at": one.at}
            for name in ("direct", "patched", "item", "others", "more", "label", "choice"):
                effect: Effect = getattr(one, name)
                row |= {name: effect.effect, f"{name}_low": effect.low, f"{name}_high": effect.high}
            rows.append(row)
        return pandas.DataFrame(rows)

    def kept_table(self) -> "pandas.DataFrame":
        """One row a letter head and part: head, part, dimensions, d_head, change, variance, letter, place, right."""
        import pandas

        return pandas.DataFrame([dataclasses.asdict(one) for one in self.kept])


def _span(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
