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
from circuits.heads.composition import folded_unembedding, output_matrices
from circuits.models import Model, Run, TokenBatch
from circuits.statistics import standard_error
from circuits.tasks.repeats import repeated_tokens, sampling_pool

if TYPE_CHECKING:
    import pandas

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
    with torch.no_grad():
        run = model.run(repeats)
        later = torch.arange(repeats.ids.shape[1], device=model.device) >= repeats.ids.shape[1] - (fitting - 1) * length
        after = torch.zeros_like(_same_token(repeats))
        after[:, :, 1:] = _same_token(repeats)[:, :, :-1]
        values = {
            "prefix_matching": _attention_to(run, after, later.expand_as(repeats.mask)),
            "copying": _copying(model, sequences, length, seed),
            "duplicate_token": _attention_to(run, _same_token(repeats), later.expand_as(repeats.mask)),
        }
        ordinary = run if text is None else model.run(text)
        place = ordinary.tokens.positions
        before = place[:, :, None] - place[:, None, :] == 1
        first = (place == 0)[:, None, :].expand_as(before)
        counted = ordinary.tokens.mask & (place > 0)
        values["previous_token"] = _attention_to(ordinary, before, counted)
        values["first_token"] = _attention_to(ordinary, first, counted)
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


def _attention_to(
    run: Run, keys: Bool[Tensor, "prompt query key"], queries: Bool[Tensor, "prompt query"]
) -> Float[Tensor, "prompt layer head"]:
    """Attention from the counted queries to the marked keys (and no pads), summed over keys, averaged over queries."""
    keys = (keys & run.tokens.mask[:, None, :]).to(run.logits.dtype)
    weight = queries.to(keys.dtype)
    weight = weight / weight.sum(dim=1, keepdim=True)
    layers = []
    for layer in range(len(run.weights.blocks)):
        layers.append(torch.einsum("phqk,pqk,pq->ph", run.pattern(layer), keys, weight))
    return torch.stack(layers, dim=1).double().cpu()


def _copying(model: Model, sequences: int, length: int, seed: int) -> Float[Tensor, "prompt layer head"]:
    """Olsson et al. 2022, appendix: what the head writes when it attends to a token, as logits of the prompt's tokens,
    their mean taken off, ReLU; the share that falls on the attended token; rescaled from [0, 1] to [-1, 1]. Every token
    counts as attended once, so that the score tells what a head copies and not where it happens to look."""
    pool = sampling_pool(model)
    generator = torch.Generator().manual_seed(seed + 1)
    drawn = [pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(sequences)]
    run = model.run(TokenBatch.unpadded(torch.stack(drawn).to(model.device)))
    unembedding = folded_unembedding(model.weights)[:, run.tokens.ids]
    layers = []
    for layer, block in enumerate(model.weights.blocks):
        values = run.v[layer].repeat_interleave(model.n_heads // model.n_key_value_heads, dim=2)
        written = torch.einsum("pkhd,hdm->pkhm", values, output_matrices(block))
        logits = torch.einsum("pkhm,mpt->phkt", written, unembedding)
        raised = (logits - logits.mean(dim=-1, keepdim=True)).relu()
        share = raised.diagonal(dim1=-2, dim2=-1) / raised.sum(dim=-1).clamp(min=1e-30)
        layers.append((2 * share - 1).mean(dim=-1))
    return torch.stack(layers, dim=1).double().cpu()
