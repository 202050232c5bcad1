"""Attention tracing beside ablation: where a prediction seems to come from, and where it does."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import MemoryBudgetError, NonFiniteError, PromptError, shown
from circuits.heads.attention.tracing import TRACINGS, trace_attention
from circuits.models import Model, Run, TokenBatch
from circuits.models.layers import embed, unembed
from circuits.models.memory import BUDGET, beside_budget
from circuits.models.model import Prompts
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.plan import passes, plan, row_bytes
from circuits.patching.engine.variant_pass import Pass
from circuits.patching.tracing.attention_trace import AttentionTrace
from circuits.progress import Progress, silent
from circuits.tasks.answers import answer_ids
from circuits.tasks.repeats import sampling_pool

Replacement = Literal["mean", "resample"]
Answers = str | int | Sequence[str | int] | Int[Tensor, " prompt"] | None


@torch.no_grad()
def attention(
    model: Model,
    prompts: Prompts,
    *,
    answers: Answers = None,
    position: int = -1,
    kind: Replacement = "mean",
    draws: int = 8,
    patterns: bool = False,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> AttentionTrace:
    """Trace attention from one token of each prompt back to every source token, beside what the same tokens' ablation costs.

    Tracings (`circuits.heads.tracing`): `lat`, `rollout`, `flow`, `norm`. Ablations, in nats of the answer's log-probability
    and in logits, positive = the token was helping the answer: `embedding`, the token's embedding replaced by another, its
    position kept; `knockout`, every other token that could see it may not, in any layer and head (before the softmax).

    Attention is a hint, not a cause: see `disagreement`. Raises PromptError for a position or an answer that does not fit,
    NonFiniteError, MemoryBudgetError.

    Args:
        model: the model that is traced.
        prompts: a text, texts, token ids or a batch.
        answers: one a prompt, or one for all: texts as they follow the token that is read (" Paris", with its space), or ids
            (default: the model's own top token there).
        position: the token that is read, in the prompt's own count, negative from its end; pads do not count.
        kind: what stands in for an embedding: the "mean" over the vocabulary, or that of random tokens ("resample").
        draws: how many random tokens "resample" averages.
        patterns: keep the attention patterns in the result.
        seed: that of the random tokens.
        budget: bytes of a pass, in which all variants of a prompt ride together.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if kind not in get_args(Replacement):
        raise PromptError(f"kind={kind!r}: expected one of {', '.join(get_args(Replacement))}")
    if draws < 1:
        raise PromptError(f"draws is {draws}; expected 1 or more")
    batch = model.prepare(prompts)
    columns = _columns(batch, position)
    wanted = _answers(model, answers, batch, columns)
    report = progress or silent
    parts: list[_Part] = []
    size = _at_once(model, batch, budget)
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        run = model.run(batch[rows], keep="patterns" if patterns else "factors")
        ids = None if wanted is None else wanted[rows]

        def within(what: str, done: int, total: int, at: int = start, here: int = len(run.tokens)) -> None:
            """Report a step of one batch as one of all."""
            report(what, at * total + done * here, len(batch) * total)

        part = _Part(model, run, columns[rows], ids, budget, within)
        part.measure(_replacements(model, run, kind, draws, seed + start), _knockouts(run))
        parts.append(part)
    return _trace(model, batch, columns, parts, patterns, kind, seed)


class _Part:
    """Some of the prompts: their tracings, and what is measured of them, `[prompt source]` by own position."""

    def __init__(
        self, model: Model, run: Run, columns: Tensor, answers: Tensor | None, budget: int, progress: Progress
    ) -> None:
        self.model, self.base, self.columns, self.budget, self.progress = model, Base(model, run), columns, budget, progress
        rows = torch.arange(len(columns), device=columns.device)
        final = run.residuals[-1][rows, columns]
        self.answers = unembed(model.weights, final).argmax(dim=-1) if answers is None else answers
        self.whole = self._read(final[None])[:, 0]
        traced = trace_attention(run, columns, progress=progress)
        self.tracings = {name: own_positions(values, run.tokens) for name, values in traced.items()}
        self.effects: dict[str, Tensor] = {}

    def measure(self, replacements: list[list[Variant]], knockouts: list[Variant]) -> None:
        """Fill `effects`: for each source its drops of log-probability and logit."""
        flat = [variant for draw in replacements for variant in draw] + knockouts
        drops = self.whole[:, None] - self._evaluate(flat)
        width = len(knockouts)
        embedding = drops[:, : len(flat) - width].unflatten(1, (len(replacements), width)).mean(dim=1)
        for name, values in (("embedding", embedding), ("knockout", drops[:, len(flat) - width :])):
            reach = self._reach(width, hidden=name == "knockout")
            self.effects[name], self.effects[f"{name}_logit"] = (torch.where(reach, v.T.double().cpu(), 0.0) for v in values)

    def _reach(self, width: int, *, hidden: bool) -> Bool[Tensor, "prompt source"]:
        """Sources that can make a difference; the others' effects are 0 and not what rounding makes of them."""
        tokens, at = self.base.run.tokens, torch.arange(width)
        reach = at < tokens.mask.sum(dim=1).cpu()[:, None]
        if not self.model.weights.causal:
            return reach
        place = tokens.positions.gather(1, self.columns[:, None]).cpu()
        return reach & (at < place if hidden else at <= place)

    def _evaluate(self, variants: list[Variant]) -> Float[Tensor, "number variant prompt"]:
        """Log-probability and logit of the answers in every variant."""
        run, read = self.base.run, self.columns[:, None]
        found = self.whole[:, None].expand(-1, len(variants), -1).clone()
        planned = plan(variants, run.weights, run.tokens, read)
        carrier, done = Pass(self.base, read), len(variants) - len(planned)
        for group in passes(planned, run.weights, run.tokens, self.budget):
            for block in carrier.run(group):
                scores = self._read(block.x[:, :, 0])
                for row, stream in enumerate(block.streams):
                    for variant in stream.variants:
                        found[:, variant.index] = scores[:, row]
            done += len(group)
            self.progress("taking tokens away", done, len(variants))
        if not bool(found.isfinite().all()):
            _, variant, prompt = (~found.isfinite()).nonzero()[0].tolist()
            name = variants[variant][0].label if variants[variant] else "nothing"
            raise NonFiniteError(f"the answer's logits hold NaN or infinity on prompt {prompt} with {name}")
        return found

    def _read(self, final: Float[Tensor, "variant prompt d_model"]) -> Float[Tensor, "number variant prompt"]:
        """Log-probability and logit of the answers from final residual streams, a few variants at a time."""
        size = 8 * self.model.weights.W_U.shape[1] * final.shape[1]
        parts = []
        for block in final.split(max(1, self.budget // (3 * size))):
            logits = unembed(self.model.weights, block)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            taken = logits.gather(2, self.answers[None, :, None].expand(len(block), -1, 1))[:, :, 0]
            parts.append(torch.stack([taken - logits.logsumexp(dim=-1), taken]))
        return torch.cat(parts, dim=1)


def _replacements(model: Model, run: Run, kind: Replacement, draws: int, seed: int) -> list[list[Variant]]:
    """For each draw, one variant a source position: its input replaced. `seed` is that of the first prompt."""
    weights, tokens = model.weights, run.tokens
    if kind == "mean":
        mean = weights.W_E.double().mean(dim=0).to(weights.W_E)
        values = [embed(weights, tokens, mean - weights.W_E[tokens.ids])]
    else:
        drawn = tokens.ids.expand(draws, -1, -1).clone()
        pool = sampling_pool(model)
        for prompt, mask in enumerate(tokens.mask):  # a generator a prompt: no draw depends on the other prompts
            generator = torch.Generator().manual_seed(seed + prompt)
            places = torch.randint(len(pool), (draws, int(mask.sum())), generator=generator)
            drawn[:, prompt, mask] = pool[places].to(drawn)
        values = [embed(weights, TokenBatch(one, tokens.mask)) for one in drawn]
    return [
        [(Change("residual", 0, None, value, mask, label=f"token {at} replaced"),) for at, mask in enumerate(_masks(tokens))]
        for value in values
    ]


def _knockouts(run: Run) -> list[Variant]:
    """One variant a source position: no other token that comes later (without causal masking: no other token) sees it."""
    variants: list[Variant] = []
    for at, source in enumerate(_masks(run.tokens)):
        others = run.tokens.mask & ~source
        if run.weights.causal:
            others = others & (run.tokens.positions > at)
        blocked = others[:, :, None] & source[:, None, :]
        layers = range(len(run.weights.blocks))
        variants.append(tuple(Change("knockout", n, None, blocked, others, label=f"token {at} hidden") for n in layers))
    return variants


def _masks(tokens: TokenBatch) -> Iterator[Bool[Tensor, "prompt position"]]:
    """For each position that some prompt has, the column where it stands."""
    for at in range(int(tokens.mask.sum(dim=1).max())):
        yield tokens.mask & (tokens.positions == at)


def own_positions(values: Float[Tensor, "prompt position"], tokens: TokenBatch) -> Float[Tensor, "prompt source"]:
    """Values of columns as values of the prompts' own positions, 0 past a prompt's end; in float64 on the CPU."""
    width = int(tokens.mask.sum(dim=1).max())
    moved = torch.zeros(len(tokens), width, dtype=torch.float64)
    prompts, columns = (index.cpu() for index in tokens.mask.nonzero(as_tuple=True))
    moved[prompts, tokens.positions.cpu()[prompts, columns]] = values.double().cpu()[prompts, columns]
    return moved


def _columns(batch: TokenBatch, position: int) -> Int[Tensor, " prompt"]:
    """The column of the token that is read in each prompt."""
    columns = batch.columns_at(position)
    wrong = columns < 0
    if bool(wrong.any()):
        prompt = int(wrong.nonzero()[0, 0])
        tokens = int(batch.mask[prompt].sum())
        raise PromptError(f"prompt {prompt} has {tokens} tokens and no position {position}: name one of its own")
    return columns


def _answers(model: Model, answers: Answers, batch: TokenBatch, columns: Tensor) -> Int[Tensor, " prompt"] | None:
    """Token ids of the answers; of a text that which would follow the token that is read."""
    if answers is None:
        return None
    if isinstance(answers, Tensor):
        answers = [int(token) for token in answers]
    given = [answers] * len(batch) if isinstance(answers, str | int) else list(answers)
    if len(given) != len(batch):
        raise PromptError(f"{len(given)} answers for {len(batch)} prompts; expected one a prompt")
    ends = zip(batch.ids.cpu(), batch.mask.cpu(), columns.tolist(), strict=True)
    ids = answer_ids(model, given, [row[: end + 1][mask[: end + 1]].tolist() for row, mask, end in ends])
    size = model.weights.W_U.shape[1]
    for prompt, token in enumerate(ids):
        if not 0 <= token < size:
            raise PromptError(f"prompt {prompt}: the answer {shown(given[prompt])} is outside the vocabulary of {size}")
    return torch.tensor(ids, device=model.device)


def _at_once(model: Model, batch: TokenBatch, budget: int) -> int:
    """Prompts that are measured together: the masks of all their sources take at most the budget, and so does one variant."""
    width = batch.ids.shape[1]
    needed = max(2 * width**3, row_bytes(model.weights, width, 0))
    if needed > budget:
        raise MemoryBudgetError(
            f"taking single tokens out of a prompt of {width} needs about {beside_budget(needed, budget)}: give a "
            "shorter prompt or a larger budget"
        )
    return min(64, budget // needed)


def _trace(
    model: Model, batch: TokenBatch, columns: Tensor, parts: list[_Part], patterns: bool, kind: str, seed: int
) -> AttentionTrace:
    width, opening = int(batch.mask.sum(dim=1).max()), model.bos_id
    rows = [ids[mask].tolist() for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)]

    def joined(values: Callable[[_Part], Tensor]) -> Tensor:
        """Values of all batches, padded to one width."""
        found = [values(part) for part in parts]
        return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1])) for one in found])

    places = batch.positions.gather(1, columns[:, None])[:, 0].tolist()
    answers = torch.cat([part.answers for part in parts]).tolist()
    whole = torch.cat([part.whole for part in parts], dim=1).double().cpu()
    kept = (
        ()
        if not patterns
        else tuple(torch.cat([part.base.run.patterns[layer] for part in parts]) for layer in range(model.n_layers))
    )
    return AttentionTrace(
        model=model.name,
        weights_sha256=model.fingerprint,
        tokens=tuple(tuple(model.to_token_strings(row)) for row in rows),
        opening=tuple(model.tokenizer is not None and row[0] == opening for row in rows),
        causal=model.weights.causal,
        positions=tuple(places),
        answers=tuple(model.to_token_strings(answers)),
        log_probabilities=whole[0],
        logits=whole[1],
        tracings={name: joined(lambda part, name=name: part.tracings[name]) for name in TRACINGS},
        effects={name: joined(lambda part, name=name: part.effects[name]) for name in parts[0].effects},
        kind=kind,
        seed=seed,
        patterns=kept,
    )
