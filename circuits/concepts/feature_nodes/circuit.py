"""A circuit of features: nodes of dictionaries, and how much of the behaviour they keep by themselves."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureCircuit(Result, format="circuits-feature-circuit"):
    """Features (and what dictionaries leave over) that do a task, chosen by attribution on some prompts and judged on others.

    Faithfulness: 0 = all that stands at the dictionaries' places as outside, 1 = as the model; nodes outside have the values of
    the corrupt prompts, or their mean (`metadata["outside"]`)."""

    nodes: tuple[str, ...]
    """Those of largest attribution first."""
    scores: tuple[float, ...] = dataclasses.field(metadata=stored(axis="node"))
    """Their attributions, in the metric's unit, on the prompts that they were chosen on."""
    prompts: int
    """On which it is judged."""
    faithfulness: Effect
    """Of these nodes alone, with its 95 % interval over prompts."""
    without: Effect
    """Of the model without these nodes: near 0 where the circuit is complete (Marks et al. 2024)."""
    null: tuple[float, ...]
    """Faithfulness of as many features of each dictionary, drawn from those of largest attribution, beside the same errors."""
    p_value: float | None
    errors_out: Effect
    """Of the same nodes with what dictionaries leave over outside."""
    null_out: tuple[float, ...]
    """Of random features so."""
    p_out: float | None
    errors_in: Effect
    """Of the same nodes with every dictionary's error inside."""
    errors_alone: Effect
    """Of the errors by themselves, with no feature: what dictionaries fail to explain of the task."""
    sizes: tuple[int, ...] = dataclasses.field(metadata=stored(axis="size"))
    """Numbers of nodes, the largest attributions first, with their faithfulness on the same prompts."""
    curve: tuple[Effect, ...] = dataclasses.field(metadata=stored(axis="size"))
    curve_without: tuple[Effect, ...] = dataclasses.field(metadata=stored(axis="size"))
    """Of the model without them."""
    curve_out: tuple[Effect, ...] = dataclasses.field(metadata=stored(axis="size"))
    """Of these nodes with errors outside."""
    random: Float[Tensor, "draw size"]
    """Of as many features drawn at random, beside the same errors."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.nodes) != len(self.scores) or len({len(self.sizes), len(self.curve), self.random.shape[1]}) != 1:
            raise CircuitsError("a circuit of features needs a score a node, and a faithfulness a size")

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def features(self) -> tuple[str, ...]:
        """The nodes that are features."""
        return tuple(name for name in self.nodes if ".f" in name)

    @property
    def rests(self) -> tuple[str, ...]:
        """The others: errors, skip connections."""
        return tuple(name for name in self.nodes if ".f" not in name)

    def noted(self, **more: Any) -> "FeatureCircuit":
        """The same with more said of where it comes from; nothing of what is empty."""
        return dataclasses.replace(self, metadata={**self.metadata, **{key: value for key, value in more.items() if value}})

    @property
    def summary(self) -> str:
        """How much the circuit keeps, what is left without it, and what chance keeps."""
        parts = ([counted(len(self.features), "feature")] if self.features else []) + list(self.rests)
        one, keep = self.faithfulness, "keep" if len(self.features) + len(self.rests) > 1 else "keeps"
        words = [
            f"{' and '.join(parts)} {keep} {one.effect:z.2f} of what their places do (95 % interval "
            f"{one.low:z.2f} to {one.high:z.2f}, {counted(self.prompts, 'prompt')}).",
            f"Without them the model keeps {self.without.effect:z.2f}.",
        ]
        if self.null and self.p_value is not None:
            many = f"{counted(len(self.null), 'random set')} of as many features"
            words.append(f"{many}: at most {max(self.null):z.2f} (p = {self.p_value:.3g}).")
        alone = f"errors alone keep {self.errors_alone.effect:z.2f}."
        if any(name.endswith(".error") for name in self.nodes):
            chance = f" (random ones at most {max(self.null_out):z.2f}, p = {self.p_out:.3g})" if self.null_out else ""
            words.append(f"With errors outside the features keep {self.errors_out.effect:z.2f}{chance}; {alone}")
        else:
            words.append(f"No error is among them; {alone}")
        return " ".join(words)

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a size: nodes, faithfulness with its interval, what the model keeps without them, what random ones keep."""
        import pandas

        rows = []
        for place, (size, one, left) in enumerate(zip(self.sizes, self.curve, self.curve_without, strict=True)):
            row = {"nodes": size, "faithfulness": one.effect, "low": one.low, "high": one.high, "without": left.effect}
            row["errors_out"] = self.curve_out[place].effect
            drawn = self.random[:, place]
            row |= {"random_mean": float(drawn.mean()), "random_max": float(drawn.max())} if len(drawn) else {}
            rows.append(row)
        return pandas.DataFrame(rows)
