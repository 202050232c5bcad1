"""Which heads point along which relation between words, beside what a word's place alone tells (Clark et al. 2019)."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.heads.attention.words import Aligned, align_sentences, stream_attention
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import bonferroni, clustered_errors, mcnemar
from circuits.tasks.sources.conllu import Sentence

if TYPE_CHECKING:
    import pandas

DIRECTIONS = ("head", "dependent")
"""What is looked at: the word's head (dependent → head), or its dependent (head → dependent)."""
_ROWS = ("offsets", "counts", "baseline", "baseline_errors")
_TABLES = ("accuracy", "errors", "gain_errors", "p_values")


@dataclasses.dataclass(frozen=True, eq=False)
class HeadLabels(Result, format="circuits-head-labels"):
    """For each relation and direction, how often each head looks most at the word that the relation names.

    Rows are (relation, direction); all shares are of cases in the half of the sentences that the baseline was not found on.
    """

    model: str
    weights_sha256: str
    rows: tuple[tuple[str, str], ...]
    counts: Int[Tensor, " row"]
    """Cases that shares are of."""
    offsets: Int[Tensor, " row"]
    """The position baseline: it always names the word this many places on (negative: before)."""
    baseline: Float[Tensor, " row"]
    baseline_errors: Float[Tensor, " row"]
    accuracy: Float[Tensor, "row layer head"]
    errors: Float[Tensor, "row layer head"]
    """Standard errors, cases of one sentence taken together; those of the baseline likewise."""
    gain_errors: Float[Tensor, "row layer head"]
    """Standard errors of accuracy minus baseline, on the same cases."""
    p_values: Float[Tensor, "row layer head"]
    """One-sided exact McNemar test against the baseline, times the number of tests (Bonferroni), at most 1."""
    sentences: int
    left_out: dict[str, int]
    """Sentences that were not used, by reason; and `words`, those without a token of their own."""
    seed: int

    def __post_init__(self) -> None:
        count, shapes = len(self.rows), {tuple(getattr(self, name).shape) for name in _TABLES}
        if any(getattr(self, name).shape != (count,) for name in _ROWS) or len(shapes) > 1 or self.accuracy.ndim != 3:
            raise CircuitsError("head labels need one number a row, and tables of shape [row layer head]")
        if len(self.accuracy) != count:
            raise CircuitsError(f"{count} rows of head labels, but tables of {len(self.accuracy)}")

    @property
    def summary(self) -> str:
        """How many heads beat the position baseline, and the one that does so most."""
        found = self.beating()
        if not len(found):
            return f"{self.model}: no head beats the position baseline in {len(self.rows)} relations and directions."
        first = found.iloc[0]
        most = f"{first['head']} at {first['relation']} most, {first['accuracy']:.1%} against {first['baseline']:.1%}"
        return f"{self.model}: heads beat the position baseline {len(found)} times over {len(self.rows)} relations; {most}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a relation, direction and head."""
        import pandas

        layers, heads = self.accuracy.shape[1:]
        found = []
        for row, (relation, direction) in enumerate(self.rows):
            shared = {"relation": relation, "looks_at": direction, "cases": int(self.counts[row])}
            shared |= {"offset": int(self.offsets[row]), "baseline": float(self.baseline[row])}
            for place in range(layers * heads):
                at = (row, place // heads, place % heads)
                values = {"accuracy": float(self.accuracy[at]), "standard_error": float(self.errors[at])}
                values |= {"gain": values["accuracy"] - shared["baseline"], "gain_error": float(self.gain_errors[at])}
                name = {"head": f"a{at[1]}.h{at[2]}", "layer": at[1]}
                found.append({**shared, **name, **values, "p_value": float(self.p_values[at])})
        return pandas.DataFrame(found)

    def best(self) -> "pandas.DataFrame":
        """Each row's most accurate head (of equal ones the earliest), in the order of its gain."""
        table = self.to_dataframe()
        ranked = table.sort_values("accuracy", ascending=False, kind="stable").drop_duplicates(["relation", "looks_at"])
        gains = ranked["gain"].tolist()
        return ranked.iloc[sorted(range(len(gains)), key=lambda place: -gains[place])].reset_index(drop=True)

    def beating(self, *, level: float = 0.05) -> "pandas.DataFrame":
        """Heads that beat the position baseline, p-value (corrected) up to `level`, in the order of their gain."""
        table = self.to_dataframe()
        kept: Any = table[(table["p_value"] <= level) & (table["gain"] > 0)]
        return kept.sort_values("gain", ascending=False, kind="stable").reset_index(drop=True)


def label_heads(
    model: Model,
    sentences: Sequence[Sentence],
    *,
    relations: Sequence[str] | None = None,
    min_count: int = 50,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> HeadLabels:
    """How often each head looks most at the word that a dependency names, for every relation and both directions.

    A head looks from a word's last token; what it gives to the tokens of another word is summed, and the word with most is
    what it looks at (of equal ones the earlier). BOS and the word itself are no options, nor in a causal model are later
    words; so only pairs count whose looked-at word comes earlier. Relations are taken without subtypes (`nmod:poss` is an
    `nmod`), unless `relations` names one with its subtype; those with fewer than `min_count` cases are left out.

    The baseline is the fixed offset that is right most often on half of the sentences (drawn by `seed`); it and the heads are
    scored on the other half. Raises PromptError where no relation has enough cases, ModelError as `align_sentences`.
    """
    aligned, left_out = align_sentences(model, sentences)
    left_out["words"] = sum(not own for one in aligned for own in one.own)
    known = {part for one in sentences for word in one.words for part in (word.relation, word.relation.split(":")[0])}
    for name in relations or ():
        if name not in known:
            raise PromptError(f"no word has the relation {name!r}: these sentences have {', '.join(sorted(known))}"[:400])
    cases = _cases(model, aligned, None if relations is None else set(relations))
    groups: dict[tuple[str, str], list[int]] = {}
    for number, case in enumerate(cases):
        for relation in case.relations:
            groups.setdefault((relation, case.direction), []).append(number)
    second = _second_half(len(aligned), seed)
    groups = {
        row: kept
        for row, kept in sorted(groups.items())
        if len(kept) >= min_count and 0 < sum(bool(second[cases[number].sentence]) for number in kept) < len(kept)
    }
    if not groups:
        raise PromptError(
            f"no relation has {min_count} cases or more in {len(aligned)} sentences: give more of them, or lower min_count"
        )
    right = _right(model, aligned, cases, budget, progress)
    found = [_scored(cases, right, kept, second) for kept in groups.values()]
    tables = {name: torch.stack([row[name] for row in found]) for name in found[0]}
    tables["p_values"] = bonferroni(tables["p_values"])
    shaped = {n: v.unflatten(1, (model.n_layers, model.n_heads)) if n in _TABLES else v for n, v in tables.items()}
    about: dict[str, Any] = {"sentences": len(aligned), "left_out": left_out, "seed": seed}
    return HeadLabels(model.name, model.fingerprint, tuple(groups), **shaped, **about)


@dataclasses.dataclass(frozen=True)
class _Case:
    """In a sentence, one word should look at another."""

    sentence: int
    looks: int
    gold: int
    relations: tuple[str, ...]
    direction: str


def _cases(model: Model, aligned: Sequence[Aligned], wanted: set[str] | None) -> list[_Case]:
    cases = []
    for place, one in enumerate(aligned):
        own = one.own
        for number, word in enumerate(one.sentence.words):
            names = {word.relation.split(":")[0]} if wanted is None else {word.relation, word.relation.split(":")[0]} & wanted
            if word.head is None or not names or not (own[number] and own[word.head]):
                continue
            for direction, looks, gold in (("head", number, word.head), ("dependent", word.head, number)):
                if gold < looks or not model.weights.causal:
                    cases.append(_Case(place, looks, gold, tuple(sorted(names)), direction))
    return cases


def _second_half(count: int, seed: int) -> Bool[Tensor, " sentence"]:
    """Which sentences are scored: half of them, drawn."""
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.zeros(count, dtype=torch.bool).scatter(0, drawn[count // 2 :], True)


def _right(
    model: Model, aligned: Sequence[Aligned], cases: Sequence[_Case], budget: int, progress: Progress | None
) -> Bool[Tensor, "case head"]:
    """Whether each head looks most at the word it should."""
    right = torch.zeros(len(cases), model.n_layers * model.n_heads, dtype=torch.bool)
    by_sentence: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        by_sentence.setdefault(case.sentence, []).append(number)
    for batch in stream_attention(model, aligned, budget=budget, progress=progress):
        numbers = [(row, n) for row, place in enumerate(batch.places) for n in by_sentence.get(place, ())]
        for start in range(0, len(numbers), 512):
            part = numbers[start : start + 512]
            rows, looks, gold = (
                torch.tensor(values, device=batch.own.device)
                for values in zip(*((row, cases[n].looks, cases[n].gold) for row, n in part), strict=True)
            )
            words = torch.arange(batch.own.shape[1], device=rows.device)
            options = batch.own[rows] & (words < looks[:, None] if model.weights.causal else words != looks[:, None])
            seen = batch.attention[rows, looks].masked_fill(~options[:, :, None], -1.0)
            right[[n for _, n in part]] = (seen.argmax(dim=1) == gold[:, None]).cpu()
    return right


def _scored(cases: Sequence[_Case], right: Tensor, kept: Sequence[int], second: Tensor) -> dict[str, Tensor]:
    """One row of the tables; p-values not corrected yet."""
    offsets: dict[int, int] = {}
    for case in (cases[number] for number in kept if not second[cases[number].sentence]):
        offsets[case.gold - case.looks] = offsets.get(case.gold - case.looks, 0) + 1
    offset = min(offsets, key=lambda one: (-offsets[one], abs(one), one))
    scored = [number for number in kept if second[cases[number].sentence]]
    sentence = torch.tensor([cases[number].sentence for number in scored])
    ours = right[scored].double()
    fixed = torch.tensor([float(cases[number].gold - cases[number].looks == offset) for number in scored])[:, None].double()
    wins, losses = ((ours > fixed).sum(dim=0), (ours < fixed).sum(dim=0))
    return {
        "counts": torch.tensor(len(scored)),
        "offsets": torch.tensor(offset),
        "baseline": fixed.mean(),
        "baseline_errors": clustered_errors(fixed, sentence)[0],
        "accuracy": ours.mean(dim=0),
        "errors": clustered_errors(ours, sentence),
        "gain_errors": clustered_errors(ours - fixed, sentence),
        "p_values": torch.tensor(list(map(mcnemar, wins.tolist(), losses.tolist())), dtype=torch.float64),
    }
