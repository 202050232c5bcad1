"""The attention-only probe (Clark et al. 2019): how much of a sentence's dependencies a weighted sum of heads tells."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, MemoryBudgetError, PromptError
from circuits.files.results import Result
from circuits.heads.attention.words import Aligned, align_sentences, stream_attention
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import clustered_errors
from circuits.tasks.sources.conllu import Sentence

if TYPE_CHECKING:
    import pandas

FEATURES = 2**30
"""Bytes of attention between words that the probe is trained and judged on."""
SCORES = ("probe", "offset", "uniform")
PARTS = ("all", "earlier", "later")


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionProbe(Result, format="circuits-attention-probe"):
    """A weight a head for looking at one's head (`w`) and one for being looked at by it (`u`), and how often the probe finds
    the head of a word in sentences that it was not trained on (UAS, root words left out), beside its baselines."""

    model: str
    weights_sha256: str
    w: Float[Tensor, "layer head"]
    u: Float[Tensor, "layer head"]
    scores: dict[str, dict[str, tuple[float, float]]]
    """By `probe`, `offset` (the fixed offset that is right most often on the training half), `uniform` (a draw from all
    other words): share of words with its standard error, for `all` of them, those whose head comes `earlier`, and `later`."""
    counts: dict[str, int]
    """Words judged on, by `all`, `earlier`, `later`."""
    offset: int
    train_words: int
    loss: float
    """Nats a word on the training half, without the ridge."""
    sentences: int
    left_out: dict[str, int]
    seed: int

    def __post_init__(self) -> None:
        if self.w.ndim != 2 or self.w.shape != self.u.shape or set(self.scores) != set(SCORES):
            raise CircuitsError("a probe needs w and u of shape [layer head], and scores of " + ", ".join(SCORES))
        if any(set(row) != set(self.counts) for row in self.scores.values()):
            raise CircuitsError("a probe's scores and counts name different words")

    @property
    def summary(self) -> str:
        """How often the probe finds a word's head, beside its baselines."""
        shares = ", ".join(f"{name} {self.scores[name]['all'][0]:.3g}" for name in SCORES)
        return f"{self.model}: {shares} of {self.counts['all']:,} words, {self.sentences:,} sentences."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a head: its weights."""
        import pandas

        heads = self.w.shape[1]
        names = [f"a{place // heads}.h{place % heads}" for place in range(self.w.numel())]
        return pandas.DataFrame({"head": names, "w": self.w.flatten().tolist(), "u": self.u.flatten().tolist()})


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Sentences of as many words: attention from each word to each other, and the head of each word that has one."""

    attention: Float[Tensor, "sentence query key head"]
    options: Bool[Tensor, "sentence word word"]
    heads: Int[Tensor, "sentence word"]
    """-1 for roots, and words that do not count."""
    places: Int[Tensor, " sentence"]


def probe_attention(
    model: Model,
    sentences: Sequence[Sentence],
    *,
    ridge: float = 1e-4,
    steps: int = 200,
    seed: int = 0,
    budget: int = BUDGET,
    features: int = FEATURES,
    progress: Progress | None = None,
) -> AttentionProbe:
    """Fit p(head of i is j) ∝ exp(sum over heads k of w_k a_k(i, j) + u_k a_k(j, i)) on half of the sentences, drawn by
    `seed`, and judge it on the other half (unlabelled attachment, UAS).

    a_k(i, j) is attention between words as in `label_heads`; j is any other word of the sentence. In a causal model the
    earlier of two words cannot see the later, so of the two terms one is zero: heads that come earlier are found through w
    (the word looks at its head), heads that come later through u (the head looks back at the word). Root words are left
    out. Fitted by L-BFGS from zero on the mean loss plus `ridge` times the squared weights; the problem is convex.

    Raises PromptError for fewer than two sentences with a dependency in each half, MemoryBudgetError where attention between
    words takes more than `features` bytes: give fewer sentences.
    """
    if not 0 <= ridge < float("inf") or steps < 1:
        raise PromptError(f"ridge={ridge}, steps={steps}: expected a finite number from 0 on, and a number of at least 1")
    aligned, left_out = align_sentences(model, sentences)
    left_out["words"] = sum(not own for one in aligned for own in one.own)
    drawn = torch.randperm(len(aligned), generator=torch.Generator().manual_seed(seed))
    judged = torch.zeros(len(aligned), dtype=torch.bool).scatter(0, drawn[len(aligned) // 2 :], True)
    groups = _groups(model, aligned, budget, features, progress)
    train, test = ([part for group in groups if (part := _chosen(group, judged == half))] for half in (False, True))
    if not _count(train) or not _count(test):
        raise PromptError(f"{len(aligned)} sentences hold too few dependencies for a probe: give more of them")
    w, u, loss = _fit(train, ridge, steps)
    offset = _best_offset(train)
    scores, counts = _judged(test, w, u, offset)
    shape = (model.n_layers, model.n_heads)
    return AttentionProbe(
        model=model.name,
        weights_sha256=model.fingerprint,
        w=w.unflatten(0, shape).double().cpu(),
        u=u.unflatten(0, shape).double().cpu(),
        scores=scores,
        counts=counts,
        offset=offset,
        train_words=_count(train),
        loss=loss,
        sentences=len(aligned),
        left_out=left_out,
        seed=seed,
    )


def _groups(model: Model, aligned: Sequence[Aligned], budget: int, features: int, progress: Progress | None) -> list[_Group]:
    sizes = [len(one.sentence.words) for one in aligned]
    needed = 4 * model.n_layers * model.n_heads * sum(size**2 for size in sizes)
    if needed > features:
        raise MemoryBudgetError(
            f"attention between the words of {len(aligned)} sentences takes {needed / 2**20:,.0f} MiB, the budget is "
            f"{features / 2**20:,.0f} MiB: give about {len(aligned) * features // needed} sentences, or a larger `features`"
        )
    found: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
    for batch in stream_attention(model, aligned, budget=budget, progress=progress):
        for row, place in enumerate(batch.places):
            size = sizes[place]
            found.setdefault(size, []).append((place, batch.attention[row, :size, :size].float(), batch.own[row, :size]))
    groups = []
    for size, rows in sorted(found.items()):
        own = torch.stack([row[2] for row in rows])
        heads = torch.tensor([_heads(aligned[row[0]]) for row in rows], device=own.device)
        options = own[:, None, :] & ~torch.eye(size, dtype=torch.bool, device=own.device)
        attention, places = torch.stack([row[1] for row in rows]), torch.tensor([row[0] for row in rows])
        groups.append(_Group(attention, options, heads, places))
        rows.clear()
    return groups


def _heads(one: Aligned) -> list[int]:
    own = one.own
    words = enumerate(one.sentence.words)
    return [-1 if w.head is None or not (own[n] and own[w.head]) else w.head for n, w in words]


def _chosen(group: _Group, wanted: Bool[Tensor, " sentence"]) -> _Group | None:
    """The sentences of a group that are wanted and have a word to judge."""
    kept = wanted[group.places] & (group.heads >= 0).any(dim=1).cpu()
    if not bool(kept.any()):
        return None
    return _Group(group.attention[kept], group.options[kept], group.heads[kept], group.places[kept])


def _count(groups: Sequence[_Group]) -> int:
    return sum(int((group.heads >= 0).sum()) for group in groups)


def _log_odds(group: _Group, w: Tensor, u: Tensor) -> Float[Tensor, "sentence word word"]:
    """log p of every head for every word."""
    scores = group.attention @ w + (group.attention @ u).transpose(1, 2)
    return scores.masked_fill(~group.options, -torch.inf).log_softmax(dim=-1)


def _fit(groups: Sequence[_Group], ridge: float, steps: int) -> tuple[Tensor, Tensor, float]:
    like, total = groups[0].attention, _count(groups)
    weights = torch.zeros(2, like.shape[-1], dtype=like.dtype, device=like.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe", tolerance_change=1e-9)
    loss = 0.0

    def closure() -> float:
        """The loss and its gradient, group by group."""
        nonlocal loss
        optimiser.zero_grad()
        loss = 0.0
        for group in groups:
            words = group.heads >= 0
            chosen = _log_odds(group, weights[0], weights[1])[words].gather(1, group.heads[words][:, None])
            part = -chosen.double().sum() / total
            part.backward()
            loss += float(part.detach())
        penalty = ridge * weights.square().sum()
        penalty.backward()
        return loss + float(penalty.detach())

    with torch.enable_grad():
        optimiser.step(closure)
        closure()
    found = weights.detach()
    return found[0], found[1], loss


def _best_offset(groups: Sequence[_Group]) -> int:
    """The offset from a word to its head that is most frequent; of equal ones the shortest."""
    found: dict[int, int] = {}
    for group in groups:
        offsets = (group.heads - torch.arange(group.heads.shape[1], device=group.heads.device))[group.heads >= 0]
        for offset, count in zip(*(values.tolist() for values in offsets.unique(return_counts=True)), strict=True):
            found[offset] = found.get(offset, 0) + count
    return min(found, key=lambda one: (-found[one], abs(one), one))


def _judged(
    groups: Sequence[_Group], w: Tensor, u: Tensor, offset: int
) -> tuple[dict[str, dict[str, tuple[float, float]]], dict[str, int]]:
    values, sentences, later = [], [], []
    for group in groups:
        words = group.heads >= 0
        gold, own = group.heads[words], torch.arange(words.shape[1], device=words.device).expand_as(words)[words]
        chosen = _log_odds(group, w, u)[words].argmax(dim=-1)
        uniform = 1 / group.options[words].sum(dim=-1).double()
        values.append(torch.stack([(chosen == gold).double(), (own + offset == gold).double(), uniform], dim=1).cpu())
        sentences.append(group.places[:, None].expand(words.shape)[words.cpu()])
        later.append((gold > own).cpu())
    table, sentence, after = torch.cat(values), torch.cat(sentences), torch.cat(later)
    masks = {"all": torch.ones_like(after), "earlier": ~after, "later": after}
    masks = {part: mask for part, mask in masks.items() if bool(mask.any())}
    scores: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in SCORES}
    for part, mask in masks.items():
        errors = clustered_errors(table[mask], sentence[mask])
        for column, name in enumerate(SCORES):
            scores[name][part] = (float(table[mask][:, column].mean()), float(errors[column]))
    return scores, {part: int(mask.sum()) for part, mask in masks.items()}
