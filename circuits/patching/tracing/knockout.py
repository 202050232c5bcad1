"""Attention knockout (Geva et al. 2023): which positions the last one must see, and in which layers."""

import dataclasses
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.progress import Progress
from circuits.tasks.subjects import subject_columns

SOURCES = ("subject", "subject_last", "non_subject", "last")


@dataclasses.dataclass(frozen=True, eq=False)
class Knockout(Result, format="circuits-knockout"):
    """The answer's probability when the last token may not attend to some positions, in a window around each layer."""

    model: str
    prompt: str
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    answer: str
    whole: float
    """Probability of the answer (the top token) with nothing blocked."""
    blocked: dict[str, Float[Tensor, " layer"]]
    """Probability by source, the window centred on each layer."""
    window: int

    @property
    def summary(self) -> str:
        """The answer's probability, and how far hiding each source brings it down."""
        lowest = ", ".join(f"{source} {float(self.change(source).min()):+.0%}" for source in self.blocked)
        return f"{self.answer!r} has probability {self.whole:.3g}; at worst, by what is hidden: {lowest}."

    def change(self, source: str) -> Float[Tensor, " layer"]:
        """Relative change of the probability: -1 = all of it is lost, 0 = nothing changes."""
        if source not in self.blocked:
            raise CircuitsError(f"{source!r} was not blocked; there are {', '.join(self.blocked)}")
        return self.blocked[source] / self.whole - 1

    def to_dataframe(self) -> pd.DataFrame:
        """One row a source and layer."""
        rows = []
        for source, values in self.blocked.items():
            for layer, (value, change) in enumerate(zip(values.tolist(), self.change(source).tolist(), strict=True)):
                rows.append({"source": source, "layer": layer, "probability": value, "relative_change": change})
        return pd.DataFrame(rows)


def attention_knockout(
    model: Model,
    prompt: str,
    *,
    subject: str,
    sources: Sequence[str] = SOURCES,
    window: int = 9,
    prepend_bos: bool | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Knockout:
    """Block the last token's attention (before the softmax, in every head) to some positions, in each window of layers, and
    measure the probability of the clean run's top token.

    Where nothing else would be left to see, the prompt's first token stays visible. Raises PromptError for a subject that is
    not in the prompt and for unknown sources.

    Args:
        model: the model that is run.
        prompt: one prompt.
        subject: words of the prompt (as whole words, the last occurrence).
        sources: "subject", "subject_last" (its last token), "non_subject" (every token that is neither the subject nor the
            last one, BOS included), "last" (the last token itself).
        window: layers of a window, clipped to the model.
        prepend_bos: put BOS in front (default: as the model's tokenizer does).
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    unknown = [source for source in sources if source not in SOURCES]
    if unknown or window < 1:
        raise PromptError(
            f"cannot block {', '.join(unknown) or 'nothing'} in windows of {window}: there are {', '.join(SOURCES)}"
        )
    model.require_open_end(prepend_bos=prepend_bos)
    tokens = model.to_tokens(prompt, prepend_bos=prepend_bos)
    first, last = subject_columns(model, prompt, subject, tokens)
    with torch.no_grad():
        clean = model.run(tokens)
    answer, width = int(clean.logits[0, -1].argmax()), tokens.ids.shape[1]

    def probability(logits: Tensor) -> Tensor:
        """The answer's probability, one a prompt."""
        return logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1)[:, answer]

    sweep = Sweep(model, clean, Reading(torch.tensor([[width - 1]], device=model.device), probability), budget=budget)
    variants, query = [], torch.zeros_like(tokens.mask)
    query[:, -1] = True
    for source in sources:
        value = torch.zeros(1, width, width, dtype=torch.bool, device=model.device)
        value[:, -1] = torch.tensor(_columns(source, first, last, width), device=model.device)
        blocks = [
            Change("knockout", layer, None, value, query, label=f"attention to {source}") for layer in range(model.n_layers)
        ]
        variants += [_window(blocks, layer, window) for layer in range(model.n_layers)]
    scores = sweep.evaluate(variants, progress=progress, what="blocking attention")[:, 0].double().cpu()
    blocked = dict(zip(sources, scores.split(model.n_layers), strict=True))
    names = tuple(model.to_token_strings(tokens.ids[0]))
    whole = float(sweep.base_scores()[0])
    return Knockout(model.name, prompt, names, (first, last), model.to_string([answer]), whole, blocked, window)


def _window(blocks: list[Change], layer: int, window: int) -> Variant:
    start, stop = max(0, layer - window // 2), min(len(blocks), layer - (-window // 2))
    return tuple(blocks[start:stop])


def _columns(source: str, first: int, last: int, width: int) -> list[bool]:
    chosen = {
        "subject": [first <= column <= last for column in range(width)],
        "subject_last": [column == last for column in range(width)],
        "non_subject": [not first <= column <= last and column != width - 1 for column in range(width)],
        "last": [column == width - 1 for column in range(width)],
    }[source]
    if all(chosen):
        chosen[0] = False
    return chosen
