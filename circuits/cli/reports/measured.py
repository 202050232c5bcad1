"""What reports on prompts share: how many there were, and how sure an effect is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from circuits.cli.prompts import Behaviour, PromptOptions
from circuits.cli.text import one_line
from circuits.models import Model
from circuits.patching import Ablation, Effects
from circuits.statistics import Effect
from circuits.tasks import PromptPairs

_Result = TypeVar("_Result", Effects, Ablation)


def noted(
    result: _Result, prompts: PromptOptions, model: Model, pairs: PromptPairs, *, look: Mapping[str, Any] | None = None
) -> _Result:
    """The same result with what its pictures and its report need to know: the shape of the graph, where the prompts come
    from, the tokens where there is one prompt, and what a look at the prompts found."""
    graph = model.graph()
    shape = {name: getattr(graph, name) for name in ("n_layers", "n_heads", "n_key_value_heads", "d_mlp", "parallel")}
    more: dict[str, Any] = {"graph": shape, "source": prompts.describe(), **({} if look is None else {"look": dict(look)})}
    if isinstance(result, Effects) and prompts.question:  # an ablation compares with no corrupt prompts
        more["question"] = prompts.question
    if len(pairs) == 1:
        more["tokens"] = model.to_token_strings(pairs.clean.ids[0])
    return dataclasses.replace(result, metadata={**result.metadata, **more})


def prompts_of(result: Effects | Ablation) -> str:
    """How many prompts there were, where they come from, and how many were left out for want of a position."""
    count = len(result.clean if isinstance(result, Effects) else result.whole)
    source, lacking = result.metadata.get("source"), result.metadata.get("without_position")
    without = f", {lacking:,} without the position left out" if isinstance(lacking, int) else ""
    origin = f" ({one_line(source)})" if isinstance(source, str) else ""
    return f"{count:,} prompt{'s' if count > 1 else ''}{origin}{without}"


def interval(effect: Effect, prompts: int) -> str:
    """An effect with its interval; alone where one prompt says nothing of how sure it is."""
    if prompts == 1:
        return f"{effect.effect:+z.3f}"
    return f"{effect.effect:+z.3f} [{effect.low:z.3f}, {effect.high:z.3f}]"


def again(asked: Behaviour, positions: str | None) -> list[str]:
    """The words of a command line about the same prompts, metric and place."""
    one_place = positions is not None and positions != "each" and "," not in positions
    words = ["--positions", str(positions)] if one_place else []
    words += [] if asked.metric in (None, "logit_difference") else ["--metric", str(asked.metric)]
    return [*words, *asked.prompts.arguments()]
