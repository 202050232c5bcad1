"""What a model's weights say by themselves, in one result: bigrams, heads, skip-trigrams with their bugs, virtual heads."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.graph import Node
from circuits.heads.composition import copying_eigenvalue_scores, matching_eigenvalue_scores
from circuits.heads.weight_tables.bugs import SkipTrigramBug, worst_bugs
from circuits.heads.weight_tables.skip_trigrams import CONTEXT, SkipTrigram, head_factors, strongest
from circuits.heads.weight_tables.table import bigram_table
from circuits.heads.weight_tables.virtual import VirtualHead, virtual_heads, virtual_table
from circuits.models import Model, TokenBatch
from circuits.models.choosing import head_of
from circuits.models.forward import forward
from circuits.progress import Progress, silent
from circuits.tasks.repeats import sampling_pool

if TYPE_CHECKING:
    import pandas

TablePart = Literal["bigrams", "heads", "skip_trigrams", "bugs", "virtual"]


@dataclasses.dataclass(frozen=True)
class Bigram:
    """A token, the next one, and the log-probability (nats) of that by the direct path alone."""

    token: int
    next: int
    log_probability: float


@dataclasses.dataclass(frozen=True)
class HeadSummary:
    """Shares of positive eigenvalues, -1 to 1: of the OV circuit (1: copies tokens) and of the QK circuit (1: tokens attend to
    their like)."""

    head: str
    copying: float
    matching: float


@dataclasses.dataclass(frozen=True, eq=False)
class Tables(Result, format="circuits-tables"):
    """Weight tables of a model, strongest entries first; `words` has the text of every token id that is named.

    `partial`: whether the model has more than one layer of heads alone, so that bigrams and skip-trigrams are a part of what
    it does. `scale`: by what the final norm was taken to divide what heads write; `context`: tokens that a skip-trigram's
    destination was taken to see.
    """

    model: str
    partial: bool
    through_mlp0: bool
    context: int
    scale: float
    bigrams: tuple[Bigram, ...]
    heads: tuple[HeadSummary, ...]
    skip_trigrams: tuple[SkipTrigram, ...]
    bugs: tuple[SkipTrigramBug, ...]
    virtual: tuple[VirtualHead, ...]
    words: Mapping[int, str]

    def word(self, token: int | None) -> str:
        """The text of a token that is named here."""
        return "" if token is None else self.words.get(token, str(token))

    @property
    def summary(self) -> str:
        """The strongest bigram and skip-trigram, and how many heads copy."""
        parts = [f"{sum(head.copying > 0.5 for head in self.heads)} of {len(self.heads)} heads copy"]
        if self.bigrams:
            first = self.bigrams[0]
            parts.insert(0, f"strongest bigram {self.word(first.token)!r} → {self.word(first.next)!r}")
        if self.skip_trigrams:
            one = self.skip_trigrams[0]
            said = " … ".join(repr(self.word(token)) for token in (one.source, one.destination))
            parts.insert(1, f"skip-trigram {said} → {self.word(one.output)!r}")
        return f"{self.model}: {'; '.join(parts)}."

    def to_dataframe(self, part: TablePart = "skip_trigrams") -> "pandas.DataFrame":
        """One row an entry of one part: "bigrams", "heads", "skip_trigrams", "bugs" or "virtual"; tokens as text. Raises
        CircuitsError for another name."""
        import pandas

        if part == "bugs":
            return pandas.DataFrame([self._bug_row(bug) for bug in self.bugs])
        if part not in ("bigrams", "heads", "skip_trigrams", "virtual"):
            raise CircuitsError(f"no table {part!r}: there are bigrams, heads, skip_trigrams, bugs, virtual")
        rows = [dataclasses.asdict(one) for one in getattr(self, part)]
        named = ("token", "next", "source", "destination", "output")
        return pandas.DataFrame([{k: self.word(v) if k in named else v for k, v in row.items()} for row in rows])

    def _bug_row(self, bug: SkipTrigramBug) -> dict[str, object]:
        phrases = {"wanted": bug.wanted, "forced": bug.forced}
        row: dict[str, object] = {"head": bug.wanted[0].head, "source": self.word(bug.wanted[0].source)}
        for name, pair in phrases.items():
            for index, one in enumerate(pair, 1):
                row[f"{name}_{index}"] = f"{self.word(one.destination)} → {self.word(one.output)}"
        return {**row, "severity": bug.severity, "distinction": bug.distinction}


def tables(
    model: Model,
    *,
    top: int = 20,
    heads: Sequence[str | Node] | None = None,
    per_source: int | None = 1,
    context: int = CONTEXT,
    offset: int = 0,
    scale: float | None = None,
    through_mlp0: bool = False,
    progress: Progress | None = None,
) -> Tables:
    """Read a model's weights as tables of tokens (Elhage et al. 2021): the most likely bigrams of the direct path; the
    strongest skip-trigrams of heads, and as many bugs; the largest virtual heads, the first of them with the tokens they
    connect; eigenvalue scores of all heads.

    Nothing of vocabulary² is held. A model of one layer of heads alone is these tables; of others they are a part. Raises
    GraphError for what is no head, PromptError for numbers that make no sense, NonFiniteError.

    Args:
        model: the model whose weights are read.
        top: rows of each table.
        heads: those whose skip-trigrams are read (default: those of layer 0).
        per_source: skip-trigrams of one source token at most (None: any number).
        context: as in `skip_trigrams`.
        offset: as in `skip_trigrams`.
        scale: by what the final norm divides what heads write; None: `measured_scale`.
        through_mlp0: tokens are what the first MLP makes of them.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if top < 1:
        raise PromptError(f"top={top}: expected a number of at least 1")
    model.require_finite()
    report = progress or silent
    chosen = [f"a0.h{head}" for head in range(model.n_heads)] if heads is None else heads
    places = sorted({head_of(model, head) for head in chosen})
    with torch.no_grad():
        size = measured_scale(model) if scale is None else scale
        direct = bigram_table(model, through_mlp0=through_mlp0)
        bigrams = tuple(Bigram(*entry) for entry in direct.largest(top, progress=_said(report, "reading bigrams")))
        trigrams: list[SkipTrigram] = []
        bugs: list[SkipTrigramBug] = []
        for done, (layer, head) in enumerate(places):
            report("reading skip-trigrams", done, len(places))
            options: dict[str, Any] = {"offset": offset, "scale": size, "through_mlp0": through_mlp0}
            factors = head_factors(model, f"a{layer}.h{head}", context=context, **options)
            trigrams += strongest(factors, top, per_source=per_source)
            bugs += worst_bugs(factors, direct, top)
        report("reading skip-trigrams", len(places), len(places))
        virtual = _virtual(model, top, size, through_mlp0, report)
        copying, matching = copying_eigenvalue_scores(model).tolist(), matching_eigenvalue_scores(model).tolist()
    summaries = [
        HeadSummary(f"a{layer}.h{head}", copying[layer][head], matching[layer][head])
        for layer in range(model.n_layers)
        for head in range(model.n_heads)
    ]
    trigrams.sort(key=lambda one: (-one.score, one.head, one.source))
    bugs.sort(key=lambda bug: (-bug.severity, bug.wanted[0].head, bug.wanted[0].source))
    partial = model.n_layers > 1 or model.d_mlp > 0
    parts: tuple[Any, ...] = (bigrams, tuple(summaries), tuple(trigrams), tuple(bugs), virtual)
    named = _words(model, parts)
    return Tables(model.name, partial, through_mlp0, context, size, *parts, words=named)


def measured_scale(model: Model, *, seed: int = 0) -> float:
    """By what the final norm divides, the mean over a run on 8 prompts of 32 random tokens; 1 without a final norm."""
    if model.weights.final_norm is None:
        return 1.0
    generator = torch.Generator().manual_seed(seed)
    pool = sampling_pool(model)
    width = min(32, model.max_positions or 32)
    ids = pool[torch.randint(len(pool), (8, width), generator=generator)].to(model.device)
    run = forward(model.weights, TokenBatch.unpadded(ids), logits=False)
    return float(run.final_scale.double().mean())


_WITH_TOKENS = 5
"""Virtual heads whose tokens are looked for, which takes as long as a head's skip-trigrams."""


def _virtual(model: Model, top: int, scale: float, through_mlp0: bool, report: Progress) -> tuple[VirtualHead, ...]:
    found = virtual_heads(model, top, progress=report)
    looked = min(_WITH_TOKENS, len(found))
    for index in range(looked):
        report("reading virtual heads", index, looked)
        one = found[index]
        table = virtual_table(model, one.first, one.second, scale=scale, through_mlp0=through_mlp0)
        (source, output, _), *_ = table.largest(1)
        found[index] = dataclasses.replace(one, source=source, output=output)
    report("reading virtual heads", looked, max(1, looked))
    return tuple(found)


def _said(report: Progress, what: str) -> Progress:
    return lambda _, done, total: report(what, done, total)


def _words(model: Model, parts: tuple[Any, ...]) -> dict[int, str]:
    """The text of every token id in these records."""
    ids: set[int] = set()
    bigrams, _, trigrams, bugs, virtual = parts
    for one in bigrams:
        ids |= {one.token, one.next}
    for one in (*trigrams, *(trigram for bug in bugs for trigram in (*bug.wanted, *bug.forced))):
        ids |= {one.source, one.destination, one.output}
    for one in virtual:
        ids |= {one.source, one.output} - {None}
    named = sorted(ids)
    return dict(zip(named, model.to_token_strings(named), strict=True))
