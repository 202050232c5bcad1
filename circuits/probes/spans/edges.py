"""The edge probe (Tenney et al. 2019b): spans are projected and pooled by attention, and a hidden layer tells their labels.
Many probes are trained side by side, each on the layers that it may see (Tenney et al. 2019a)."""

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.probes.spans.asking import SpanQuestion
from circuits.progress import Progress, silent

BATCH, RATE, MIXING, PATIENCE, LOOK = 64, 3e-3, 3e-2, 4, 50
"""Targets of a step, the step of Adam, that of the weights of a mix (which start alike and are few); how often the development
targets may be told no better before it ends; and the fewest steps between two looks at them."""
FEWEST = 10
"""Steps that a turn through the targets counts for at least."""
HALF = 0.0
"""Log-odds above which a label is told."""


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeBank:
    """Edge probes with one shape. Each reads g sum_l s_l h_l, s the softmax of `mixing` over the sources it may see; each span
    has a projection and a query of its own."""

    allowed: Bool[Tensor, "probe source"]
    mixing: Float[Tensor, "probe source"]
    gain: Float[Tensor, " probe"]
    P: Float[Tensor, "span probe width rank"]
    c: Float[Tensor, "span probe one rank"]
    query: Float[Tensor, "span probe rank one"]
    W: Float[Tensor, "probe pooled hidden"]
    b: Float[Tensor, "probe one hidden"]
    U: Float[Tensor, "probe hidden label"]
    d: Float[Tensor, "probe one label"]

    @classmethod
    def drawn(
        cls, allowed: Bool[Tensor, "probe source"], *, spans: int, width: int, rank: int, hidden: int, labels: int, seed: int
    ) -> "EdgeBank":
        """Probes with the same first values, drawn by `seed`: what one reads better than another is not luck of the draw."""
        generator = torch.Generator().manual_seed(seed)
        probes, sources = allowed.shape

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator) / shape[-2] ** 0.5

        def alike(x: Tensor, dim: int) -> Tensor:
            return x.unsqueeze(dim).repeat_interleave(probes, dim=dim)

        return cls(
            allowed,
            torch.zeros(probes, sources),
            torch.ones(probes),
            alike(normal(spans, width, rank), 1),
            torch.zeros(spans, probes, 1, rank),
            alike(normal(spans, rank, 1), 1),
            alike(2**0.5 * normal(spans * rank, hidden), 0),
            torch.zeros(probes, 1, hidden),
            alike(normal(hidden, labels), 0),
            torch.zeros(probes, 1, labels),
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "allowed"}

    @property
    def mix(self) -> Float[Tensor, "probe source"]:
        """The weight of each source in what each probe reads; they sum to 1."""
        return self.mixing.masked_fill(~self.allowed, -math.inf).softmax(dim=1)

    def scores(
        self, x: Float[Tensor, "word source width"], starts: Int[Tensor, "target span"], lengths: Int[Tensor, "target span"]
    ) -> Float[Tensor, "probe target label"]:
        """Log-odds of each label."""
        pooled = [self._pooled(x, span, starts[:, span], lengths[:, span]) for span in range(starts.shape[1])]
        hidden = torch.baddbmm(self.b, torch.cat(pooled, dim=2), self.W).relu()
        return torch.baddbmm(self.d, hidden, self.U)

    def _pooled(self, x: Tensor, span: int, starts: Tensor, lengths: Tensor) -> Float[Tensor, "probe target rank"]:
        """The mean of a span's projected words, weighted by a softmax of their products with the query."""
        owner = torch.arange(len(starts)).repeat_interleave(lengths)
        words = torch.arange(len(owner)) - (lengths.cumsum(0) - lengths - starts)[owner]
        projected = torch.baddbmm(self.c[span], self._mixed(x[words]), self.P[span])
        if len(owner) == len(starts):
            return projected
        logits = (projected @ self.query[span])[..., 0]
        index = owner.expand_as(logits)
        most = torch.full((len(logits), len(starts)), -math.inf).to(logits)
        most = most.scatter_reduce(1, index, logits.detach(), "amax")
        shares = (logits - most.gather(1, index)).exp()
        total = torch.zeros_like(most).index_add(1, owner, shares)
        weighted = projected * (shares / total.gather(1, index))[..., None]
        return projected.new_zeros(len(logits), len(starts), projected.shape[2]).index_add(1, owner, weighted)

    def _mixed(self, x: Float[Tensor, "word source width"]) -> Float[Tensor, "probe word width"]:
        if bool((self.allowed.sum(dim=1) == 1).all()):  # one source each: nothing is mixed
            return x[:, self.allowed.long().argmax(dim=1)].transpose(0, 1) * self.gain[:, None, None]
        return torch.einsum("ps,wsd->pwd", self.gain[:, None] * self.mix, x)


def fit_edges(
    x: Float[Tensor, "word source width"],
    question: SpanQuestion,
    allowed: Bool[Tensor, "probe source"],
    *,
    rank: int = 64,
    hidden: int = 64,
    epochs: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
    what: str = "probing spans",
) -> EdgeBank:
    """Train edge probes on the sum over labels of the binary cross-entropy, by Adam on batches of 64 targets. Each probe keeps
    what tells the development targets best; it ends when none has got better in four looks at them, or after `epochs`. What is
    drawn is decided by `seed`.

    Raises CircuitsError for numbers below 1.

    Args:
        x: a vector a word of the text at each source, directions of deviation about 1.
        question: the spans, their labels and the split.
        allowed: which sources each probe may see; it reads their mix.
        rank: directions that spans are projected on.
        hidden: units of the hidden layer.
        epochs: how often each target is trained on at most; on few targets more often, so that there are 10 steps.
        seed: that of the first values and of the order.
        progress: hears how many steps are done, of how many at most.
        what: what it hears.
    """
    report = progress or silent
    if min(rank, hidden, epochs) < 1:
        raise CircuitsError(f"rank={rank}, hidden={hidden}, epochs={epochs}: expected at least 1 of each")
    sizes = {"spans": question.starts.shape[1], "width": x.shape[2], "labels": question.gold.shape[1]}
    bank = EdgeBank.drawn(allowed, **sizes, rank=rank, hidden=hidden, seed=seed)
    values = {name: value.to(x).requires_grad_() for name, value in bank.tensors.items()}
    bank = dataclasses.replace(bank, **values)
    groups = [{"params": [value for name, value in values.items() if name not in ("mixing", "gain")]}]
    groups += [{"params": [values["mixing"], values["gain"]], "lr": MIXING}]
    optimiser = torch.optim.Adam(groups, lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    kept = _Kept(bank)
    epoch = -(-len(question.split.train) // BATCH)
    steps, most, every = 0, epochs * max(FEWEST, epoch), max(LOOK, epoch)
    report(what, 0, most)
    while steps < most:
        for rows in torch.randperm(len(question.split.train), generator=generator).split(BATCH):
            _step(bank, x, question, question.split.train[rows], optimiser)
            steps += 1
            if steps % every == 0:
                report(what, steps, most)
                if kept.looked(x, question):
                    report(what, most, most)
                    return kept.best
    kept.looked(x, question)
    report(what, most, most)
    return kept.best


def _step(bank: EdgeBank, x: Tensor, question: SpanQuestion, targets: Tensor, optimiser: torch.optim.Optimizer) -> None:
    with torch.enable_grad():
        scores = bank.scores(x, question.starts[targets], question.lengths[targets])
        _losses(scores, question.gold[targets]).sum().backward()
    optimiser.step()
    optimiser.zero_grad()


def _losses(scores: Float[Tensor, "probe target label"], gold: Bool[Tensor, "target label"]) -> Float[Tensor, " probe"]:
    """The mean over targets of the sum over labels."""
    wanted = gold.to(scores).expand_as(scores)
    return F.binary_cross_entropy_with_logits(scores, wanted, reduction="none").sum(dim=2).mean(dim=1)


class _Kept:
    """Of each probe the values that told the development targets best."""

    def __init__(self, bank: EdgeBank) -> None:
        self.bank = bank
        self.best = dataclasses.replace(bank, **{name: one.detach().clone() for name, one in bank.tensors.items()})
        self.least = torch.full((len(bank.gain),), math.inf)
        self.waited = torch.zeros(len(bank.gain), dtype=torch.long)

    def looked(self, x: Tensor, question: SpanQuestion) -> bool:
        """Look at the development targets; whether no probe has got better for too long."""
        rows = question.split.develop
        parts = [_losses(scores, question.gold[part]) * len(part) for part, scores in scored(self.bank, x, question, rows)]
        losses = torch.stack(parts).sum(dim=0) / len(rows)
        better = losses < self.least
        self.least = torch.where(better, losses, self.least)
        self.waited = torch.where(better, 0, self.waited + 1)
        for name, value in self.bank.tensors.items():
            probes = 1 if name in ("P", "c", "query") else 0
            shape = [-1 if axis == probes else 1 for axis in range(value.ndim)]
            best = self.best.tensors[name]
            best.copy_(torch.where(better.reshape(shape), value.detach(), best))
        return bool((self.waited >= PATIENCE).all())


@torch.no_grad()
def scored(bank: EdgeBank, x: Tensor, question: SpanQuestion, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Targets part by part, with the log-odds `[probe target label]` of their labels."""
    parts: Sequence[Tensor] = targets.split(4 * BATCH)
    return [(part, bank.scores(x, question.starts[part], question.lengths[part])) for part in parts]


def told(bank: EdgeBank, x: Tensor, question: SpanQuestion, targets: Tensor) -> Bool[Tensor, "probe target label"]:
    """The labels that each probe tells: those more likely than not."""
    return torch.cat([scores > HALF for _, scores in scored(bank, x, question, targets)], dim=1)
