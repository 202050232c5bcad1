"""What is lost without heads: the heads of each pattern, and as many as cost little (Michel et al. 2019; Voita et al. 2019)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.heads.text_loss import text_batches
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.probes.patterns.marks import rows_of
from circuits.probes.patterns.results import FreeHeads, HeadPatterns, HeadPruning, PrunedClass
from circuits.progress import Progress, silent
from circuits.statistics import bootstrap, t_interval

Stand = Literal["zero", "mean"]
HeadPlace = tuple[int, int]
"""Layer and number."""


def prune_heads(
    model: Model,
    tokens: Prompts,
    patterns: HeadPatterns,
    *,
    kinds: Sequence[str] = ("zero", "mean"),
    draws: int = 4,
    nats: float = 0.1,
    free: str | None = "mean",
    rounds: int = 2,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> HeadPruning:
    """Take the heads of each pattern out of the model together, and as many random ones; and find the largest set of heads
    that costs at most `nats` a token.

    In place of what a head mixes (z, before W_O) stands 0, or its mean over the tokens of half of the prompts. The set is found
    greedily on that half: heads are taken out one by one on top of those gone already, all at once in one sweep; then as many
    of the cheapest as may go together, half of them before heads are ranked anew, all in the last round. All that is told is
    measured on the other half. A random set is of heads of other classes, or of all where those are fewer than twice as many.

    Raises PromptError as `probe_heads`, and for fewer than 4 prompts; CircuitsError for patterns of another model, kinds that
    there are not and numbers out of range.

    Args:
        model: the model whose heads go.
        tokens: prompts of one length.
        patterns: what `probe_heads` has found.
        kinds: what stands in for heads of a class: zero, mean, or both.
        draws: sets of random heads, for each class and kind.
        nats: what the largest set may cost, in nats a token.
        free: what stands in for the heads of that set; None to look for none.
        rounds: how often heads are ranked for it; each takes half the layers times the heads.
        seed: that of random heads and intervals.
        budget: bytes that a pass may take, besides the model and one run of some prompts.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    _check(model, patterns, kinds, draws, nats, free, rounds)
    batch = rows_of(model, model.prepare(tokens))
    if len(batch) < 4:
        raise PromptError(f"{len(batch)} prompts: half of them are ranked on, half judged on; expected 4 or more")
    half = len(batch) // 2
    means = _means(model, batch[:half], budget)
    chosen, judged = (_LossesWithout(model, part, means, budget, progress or silent) for part in (batch[:half], batch[half:]))
    generator = torch.Generator().manual_seed(seed)
    members = {name: [_place(head) for head in patterns.heads(name)] for name in patterns.classes}
    sets = [(name, kind, some) for name, some in members.items() for kind in kinds if some]
    random = {name: [_drawn(model, len(some), some, generator) for _ in range(draws)] for name, some in members.items()}
    asked = [(kind, one) for name, kind, some in sets for one in (some, *random[name])]
    rises = judged.rises(asked, "pruning classes")
    rows = [
        PrunedClass(name, kind, len(some), bootstrap(own[0], seed=seed), t_interval(own[1:].mean(dim=1)))
        for (name, kind, some), own in zip(sets, rises.split(1 + draws), strict=True)
    ]
    largest = None if free is None else _largest(model, chosen, judged, free, nats, rounds, draws, generator, seed)
    return HeadPruning(
        model=model.name,
        weights_sha256=model.fingerprint,
        loss=bootstrap(judged.whole, seed=seed),
        classes=tuple(rows),
        free=largest,
        total=model.n_layers * model.n_heads,
        draws=draws,
        prompts=len(batch) - half,
        tokens=batch.ids.shape[1],
        seed=seed,
    )


def _check(
    model: Model, patterns: HeadPatterns, kinds: Sequence[str], draws: int, nats: float, free: str | None, rounds: int
) -> None:
    known = get_args(Stand)
    if patterns.weights_sha256 != model.fingerprint:
        raise CircuitsError(f"these patterns are of {patterns.model}, not of {model.name} with these weights")
    if not kinds or not {*kinds, free or known[0]} <= set(known):
        raise CircuitsError(f"kinds={list(kinds)}, free={free!r}: expected {' or '.join(known)}")
    if draws < 2 or rounds < 1 or not nats > 0:
        raise CircuitsError(f"draws={draws}, rounds={rounds}, nats={nats}: expected 2, 1, and more than 0")


@dataclasses.dataclass(eq=False)
class _LossesWithout:
    """Losses of prompts without sets of heads."""

    model: Model
    tokens: TokenBatch
    means: Float[Tensor, "layer head d_head"]
    budget: int
    progress: Progress
    whole: Float[Tensor, " prompt"] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.whole = torch.cat([self._sweep(rows).base_scores().double().cpu() for rows in self._parts()])

    def rises(self, sets: Sequence[tuple[str, Sequence[HeadPlace]]], what: str) -> Float[Tensor, "set prompt"]:
        """By how much the mean loss of each prompt rises without each set, with what stands in for its heads."""
        found, done, total = [], 0, len(sets) * len(self.tokens)
        for rows in self._parts():
            variants, start = self._variants(rows, sets), done

            def tell(_: str, some: int, __: int, start: int = start, count: int = len(rows)) -> None:
                self.progress(what, start + some * count, total)

            found.append(self._sweep(rows).evaluate(variants, progress=tell, what=what).double().cpu())
            done += len(sets) * len(rows)
        return torch.cat(found, dim=1) - self.whole

    def _parts(self) -> list[TokenBatch]:
        return list(text_batches(self.model.weights, self.tokens, budget=self.budget))

    def _sweep(self, rows: TokenBatch) -> Sweep:
        with torch.no_grad():
            run = self.model.run(rows)
        return Sweep(self.model, run, _next_tokens(run.tokens), budget=self.budget)

    def _variants(self, rows: TokenBatch, sets: Sequence[tuple[str, Sequence[HeadPlace]]]) -> list[Variant]:
        """One change a head and kind, which sets share: what they have in common is then computed once."""
        known: dict[tuple[str, HeadPlace], Change] = {}
        mask = rows.mask.to(self.model.device)
        for kind, heads in sets:
            for layer, head in heads:
                value = self.means[layer, head] * (kind == "mean")
                shown = value.expand(1, mask.shape[1], -1)
                name = f"a{layer}.h{head}"
                known.setdefault((kind, (layer, head)), Change("head", layer, head, shown, mask, label=name))
        return [tuple(known[kind, head] for head in sorted(heads)) for kind, heads in sets]


def _next_tokens(tokens: TokenBatch) -> Reading:
    """The mean loss (nats) of a prompt's next tokens."""
    wanted = tokens.ids[:, 1:]
    columns = torch.arange(wanted.shape[1], device=wanted.device).expand_as(wanted)
    return Reading(columns, lambda logits: -logits.diagonal(dim1=1, dim2=2).mean(dim=1), wanted, normalised=True)


@torch.no_grad()
def _means(model: Model, batch: TokenBatch, budget: int) -> Float[Tensor, "layer head d_head"]:
    """What each head mixes, the mean over all tokens."""
    total = torch.zeros(model.n_layers, model.n_heads, model.d_head, dtype=torch.float64, device=model.device)
    for rows in text_batches(model.weights, batch, budget=budget):
        run = forward(model.weights, rows, logits=False)
        total += torch.stack([z.double().sum(dim=(0, 1)) for z in run.z])
    return (total / batch.ids.numel()).to(model.dtype)


def _place(name: str) -> HeadPlace:
    layer, head = name.removeprefix("a").split(".h")
    return int(layer), int(head)


def _drawn(model: Model, count: int, besides: Sequence[HeadPlace], generator: torch.Generator) -> list[HeadPlace]:
    """So many random heads, of others where there are twice as many: fewer would be nearly the same ones in each draw."""
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    others = [place for place in every if place not in set(besides)]
    pool = others if len(others) >= 2 * count else every
    return [pool[number] for number in torch.randperm(len(pool), generator=generator)[:count].tolist()]


def _largest(
    model: Model,
    chosen: _LossesWithout,
    judged: _LossesWithout,
    kind: str,
    nats: float,
    rounds: int,
    draws: int,
    generator: torch.Generator,
    seed: int,
) -> FreeHeads:
    """Heads that may go together."""
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    gone: list[HeadPlace] = []
    cost = 0.0
    for turn in range(rounds):
        rest = [place for place in every if place not in set(gone)]
        if not rest:
            break
        rises = chosen.rises([(kind, [*gone, place]) for place in rest], "ranking heads").mean(dim=1)
        order = [rest[number] for number in rises.argsort(stable=True).tolist()]
        size, costs = _most(chosen, kind, gone, order, nats)
        size = size if turn == rounds - 1 else -(-size // 2)
        if not size:
            break
        gone = [*gone, *order[:size]]
        cost = costs[size] if size in costs else float(chosen.rises([(kind, gone)], "ranking heads").mean())
    random = [_drawn(model, len(gone), (), generator) for _ in range(draws)]
    rises = judged.rises([(kind, one) for one in (gone, *random)], "judging the largest set")
    names = tuple(f"a{layer}.h{head}" for layer, head in gone)
    return FreeHeads(kind, nats, names, cost, bootstrap(rises[0], seed=seed), t_interval(rises[1:].mean(dim=1)))


def _most(
    losses: _LossesWithout, kind: str, gone: Sequence[HeadPlace], order: Sequence[HeadPlace], nats: float
) -> tuple[int, Mapping[int, float]]:
    """How many heads of an order may go besides those that are gone, by halving; and what was measured on the way."""
    known: dict[int, float] = {}
    least, most = 0, len(order)
    while least < most:
        size = -(-(least + most) // 2)
        known[size] = float(losses.rises([(kind, [*gone, *order[:size]])], "ranking heads").mean())
        least, most = (size, most) if known[size] <= nats else (least, size - 1)
    return least, known
