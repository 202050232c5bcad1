"""What heads attend to and copy, one number a head (Olsson et al. 2022, Elhage et al. 2021)."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.graph import Node
from circuits.heads.composition import output_matrices
from circuits.models import Model, TokenBatch
from circuits.models.folding import behind_norm
from circuits.models.forward import forward
from circuits.models.memory import prompts_at_once
from circuits.statistics import standard_error
from circuits.tasks.repeats import repeated_tokens, sampling_pool

if TYPE_CHECKING:
    import pandas

Look = tuple[Bool[Tensor, "prompt query key"], Bool[Tensor, "prompt query"]]
"""Keys that are looked at, and the queries whose looks count."""
SCORES = ("prefix_matching", "copying", "previous_token", "duplicate_token", "first_token")


@dataclasses.dataclass(frozen=True, eq=False)
class HeadScores(Result, format="circuits-head-scores"):
    """Scores of every head, `[layer head]` each: means over sequences, with their standard errors (NaN for one sequence).

    `prefix_matching`: attention to the tokens that followed earlier copies of the current one. `copying`: share of the
    head's push on the logits of a prompt's tokens that falls on the token it attends to, from -1 to 1. `previous_token`,
    `duplicate_token`, `first_token`: attention to the token before, to earlier copies of the current token, and to the
    prompt's first token.
    """

    model: str
    scores: Mapping[str, Float[Tensor, "layer head"]]
    standard_errors: Mapping[str, Float[Tensor, "layer head"]] = dataclasses.field(metadata=stored(missing=True))
    sequences: int
    seed: int

    def top(self, name: str, k: int) -> list[tuple[Node, float]]:
        """The k heads with the highest score of that name, highest first; of equal ones the earlier."""
        flat = self.scores[name].flatten()
        heads = self.scores[name].shape[1]
        order = flat.argsort(descending=True, stable=True)[:k].tolist()
        return [(Node("head", i // heads, i % heads), float(flat[i])) for i in order]

    @property
    def summary(self) -> str:
        """The highest head of each score."""
        first = {name: self.top(name, 1)[0] for name in self.scores}
        best = ", ".join(f"{name.replace('_', ' ')} {node} {value:.2f}" for name, (node, value) in first.items())
        return f"{self.model}: {best}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a head: its name, layer, head, and a column a score."""
        import pandas

        layers, heads = next(iter(self.scores.values())).shape
        rows = [{"name": f"a{layer}.h{head}", "layer": layer, "head": head} for layer in range(layers) for head in range(heads)]
        table = pandas.DataFrame(rows)
        for name, values in self.scores.items():
            table[name] = values.flatten().tolist()
        return table


def score_heads(
    model: Model,
    *,
    sequences: int = 10,
    length: int = 25,
    copies: int = 4,
    seed: int = 0,
    text: TokenBatch | None = None,
) -> HeadScores:
    """Score every head of a model.

    Prefix matching and duplicate token: on prompts of random tokens said several times, opened as the model's prompts are
    (fewer copies where the context is short), at the positions from the second copy on. Copying: on as many prompts of
    random tokens without BOS. Previous and first token: on `text` (every token but the first), or on the repeats where no
    text is given. Raises PromptError where vocabulary or context are too small, NonFiniteError for NaN and infinity.

    Args:
        model: the model whose heads are scored.
        sequences: prompts of random tokens.
        length: different random tokens of a prompt.
        copies: how often they are said.
        seed: that of the random tokens.
        text: prompts for the scores on text.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> scores = circuits.score_heads(model, sequences=2)
    >>> [round(float(head), 1) for head in scores.scores["prefix_matching"][1]]
    [0.9, 0.9, 0.9, 0.9, 0.9, 0.7, 0.9, 0.5]
    """
    room = None if model.max_positions is None else (model.max_positions - len(model.opening())) // length
    fitting = copies if room is None else max(2, min(copies, room))
    repeats, length = repeated_tokens(model, count=sequences, length=length, copies=fitting, seed=seed)
    if text is not None and text.ids.shape[1] < 2:
        raise PromptError("text of one token has no previous token to attend to")
    later = torch.arange(repeats.ids.shape[1], device=model.device) >= repeats.ids.shape[1] - (fitting - 1) * length
    same, later = _same_token(repeats), later.expand_as(repeats.mask)
    after = torch.zeros_like(same)
    after[:, :, 1:] = same[:, :, :-1]
    looks = {"prefix_matching": (after, later), "duplicate_token": (same, later)}
    with torch.no_grad():
        if text is None:
            values = _attention_to(model, repeats, looks | _ordinary(repeats))
        else:
            values = _attention_to(model, repeats, looks)
            values |= _attention_to(model, text.to(model.device), _ordinary(text.to(model.device)))
        values["copying"] = _copying(model, sequences, length, seed)
    means = {name: values[name].mean(dim=0) for name in SCORES}
    for name, mean in means.items():
        bad = (~mean.isfinite()).nonzero().tolist()
        if bad:
            raise NonFiniteError(f"the score {name} of {Node('head', *bad[0])} in {model.name} is no finite number")
    errors = {name: standard_error(values[name], dim=0) for name in SCORES}
    return HeadScores(model.name, means, errors, sequences, seed)


def _same_token(tokens: TokenBatch) -> Bool[Tensor, "prompt query key"]:
    """Whether the key is an earlier copy of the query's token."""
    same = tokens.ids[:, :, None] == tokens.ids[:, None, :]
    return same.tril(diagonal=-1)


def _ordinary(tokens: TokenBatch) -> dict[str, Look]:
    """What is counted on any text: looks at the token before, and at the first, from every token but the first."""
    place = tokens.positions
    before = place[:, :, None] - place[:, None, :] == 1
    first, counted = (place == 0)[:, None, :].expand_as(before), tokens.mask & (place > 0)
    return {"previous_token": (before, counted), "first_token": (first, counted)}


def _attention_to(model: Model, tokens: TokenBatch, looks: Mapping[str, Look]) -> dict[str, Float[Tensor, "prompt layer head"]]:
    """For each look the attention from its queries to its keys (and no pads), summed over keys, averaged over queries."""
    tokens = model.prepare(tokens)
    asked = torch.stack([keys & queries[:, :, None] & tokens.mask[:, None, :] for keys, queries in looks.values()], dim=1)
    found, step = [], prompts_at_once(model.weights, tokens.ids.shape[1])
    for start in range(0, len(tokens), step):
        some = tokens[start : start + step]
        run = forward(model.weights, some, logits=False)
        marked = asked[start : start + step].to(model.dtype)
        # A layer's pattern is made once, and all that is asked of it is one product.
        layers = [torch.einsum("phqk,plqk->plh", run.pattern(layer), marked) for layer in range(model.n_layers)]
        found.append(torch.stack(layers, dim=2).double().cpu())
    summed = torch.cat(found).unbind(dim=1)
    counts = [queries.sum(dim=1).double().cpu()[:, None, None] for _, queries in looks.values()]
    return {name: total / count for name, total, count in zip(looks, summed, counts, strict=True)}


def _copying(model: Model, sequences: int, length: int, seed: int) -> Float[Tensor, "prompt layer head"]:
    """Olsson et al. 2022, appendix: what the head writes when it attends to a token, as logits of the prompt's tokens,
    their mean taken off, ReLU; the share that falls on the attended token; rescaled from [0, 1] to [-1, 1]. Every token
    counts as attended once, so that the score tells what a head copies and not where it happens to look."""
    pool = sampling_pool(model)
    generator = torch.Generator().manual_seed(seed + 1)
    drawn = [pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(sequences)]
    tokens = model.prepare(TokenBatch.unpadded(torch.stack(drawn)))
    run = forward(model.weights, tokens, logits=False)
    # The prompts' tokens are few among all that the model predicts: their columns are taken before the norm is folded in.
    columns = behind_norm(model.weights.W_U[:, tokens.ids.flatten()], model.weights.final_norm)
    unembedding = columns.unflatten(1, tokens.ids.shape)
    layers = []
    for layer, block in enumerate(model.weights.blocks):
        values = run.v[layer].repeat_interleave(model.n_heads // model.n_key_value_heads, dim=2)
        written = torch.einsum("pkhd,hdm->pkhm", values, output_matrices(block))
        logits = torch.einsum("pkhm,mpt->phkt", written, unembedding)
        raised = (logits - logits.mean(dim=-1, keepdim=True)).relu()
        share = raised.diagonal(dim1=-2, dim2=-1) / raised.sum(dim=-1).clamp(min=1e-30)
        layers.append((2 * share - 1).mean(dim=-1))
    return torch.stack(layers, dim=1).double().cpu()
