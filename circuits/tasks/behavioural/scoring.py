"""Parameter-free probing: what a model does on minimal pairs and cloze facts, with what less knowledge would get beside it."""

from collections import Counter
from collections.abc import Sequence
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelError, PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.tasks.behavioural.likelihood import BigramModel, read_next_tokens, token_log_probabilities
from circuits.tasks.behavioural.minimal_pairs import MinimalPair
from circuits.tasks.behavioural.scores import BehaviourScores
from circuits.tasks.library.facts import first_token
from circuits.tasks.sources.facts import Fact

_MEASURES = ("top1", "reciprocal_rank", "log_probability")


def score_minimal_pairs(
    model: Model,
    pairs: Sequence[MinimalPair],
    *,
    text: str | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> BehaviourScores:
    """How often a model finds the good sentence of a minimal pair more likely than the bad one (Warstadt et al. 2020).

    Columns: `accuracy` by total log-probability, `accuracy_per_token` by its mean over tokens, `margin` (good less bad, nats),
    and baselines: `bigram` (each token by the one before it alone: counted in `text`, else asked of the model),
    `unigram` (tokens by their share of `text`, where given) and `length` (fewer tokens win). Chance is 0.5; ties, to
    rounding, count half. The first token is scored after BOS; models without one leave it out. Raises PromptError for
    sentences that the model does not take, ModelError without a tokenizer.
    """
    _check(model, pairs, "minimal pairs")
    report = progress or silent
    texts = list(dict.fromkeys(sentence for pair in pairs for sentence in (pair.good, pair.bad)))
    rows = [model.to_tokens(sentence).ids[0].tolist() for sentence in texts]
    place = {sentence: index for index, sentence in enumerate(texts)}
    sides = [[place[pair.good] for pair in pairs], [place[pair.bad] for pair in pairs]]

    def margins(scores: list[Tensor] | list[float], *, exact: bool = False) -> Float[Tensor, " pair"]:
        """The good sentence's score less the bad one's."""
        values = torch.tensor([float(score) for score in scores], dtype=torch.float64)
        return _margin(values[sides[0]], values[sides[1]], exact=exact)

    own = token_log_probabilities(model, rows, budget=budget, progress=progress)
    lengths = [max(len(row) - 1, 1) for row in rows]
    total = margins([score.sum() for score in own])
    values = {"accuracy": _won(total)}
    values["accuracy_per_token"] = _won(margins([score.sum() / length for score, length in zip(own, lengths, strict=True)]))
    values["margin"] = total
    notes = dict(_PAIR_NOTES)
    report("scoring baselines", 0, 1)
    bigram = BigramModel.of(model, text, budget=budget)
    values["bigram"] = _won(margins([score.sum() for score in bigram.log_probabilities(rows)]))
    notes["bigram"] = f"accuracy of a bigram model: {bigram.note}"
    if bigram.counts is not None:
        singles, opening = bigram.counts.singles.log(), len(model.opening())
        values["unigram"] = _won(margins([singles[row[opening:]].sum() for row in rows]))
        notes["unigram"] = "accuracy of single tokens by their share of the text"
    values["length"] = _won(margins([-float(len(row)) for row in rows], exact=True))
    report("scoring baselines", 1, 1)
    groups = tuple(pair.paradigm for pair in pairs)
    items = tuple(pair.good for pair in pairs)
    kept = {name: notes[name] for name in values}
    return BehaviourScores(model.name, "minimal pairs", items, groups, MappingProxyType(values), MappingProxyType(kept))


_PAIR_NOTES = {
    "accuracy": "share of pairs whose good sentence has the higher log-probability (chance: 0.5)",
    "accuracy_per_token": "the same by the mean over tokens",
    "margin": "log-probability of the good sentence less that of the bad one, nats",
    "length": "accuracy of taking the sentence with fewer tokens",
}


_FACT_NOTES = (
    "share of facts whose first token is the model's most likely one",
    "1 / rank of that token, ties against it",
    "log-probability of that token, nats",
)


def score_facts(
    model: Model,
    facts: Sequence[Fact],
    *,
    text: str | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> BehaviourScores:
    """How well a model completes cloze facts: the first token that follows each prompt where the text goes on with the
    attribute.

    Columns: `top1` (it is the most likely token), `reciprocal_rank` (1 for the first, 1/2 for the second, ...; ties count
    against it), `log_probability` (nats); the same three for `bigram_` (the prompt's last token alone: counted in `text`, else
    asked of the model) and `majority_` (attributes of the relation by how often these very facts have them, whatever
    the subject: an upper bound for what ignoring the subject gets). Raises PromptError for prompts that the model does not
    take, ModelError without a tokenizer.
    """
    _check(model, facts, "facts")
    report = progress or silent
    answers = torch.tensor([first_token(model, fact) for fact in facts])
    rows = [model.to_tokens(fact.prompt.rstrip()).ids[0].tolist() for fact in facts]
    own = torch.zeros(3, len(facts), dtype=torch.float64)
    done = 0

    def placed(batch: list[int], logits: Tensor) -> Tensor:
        """Where a batch's answers stand."""
        return _placed(logits, answers[batch])

    for batch, found in read_next_tokens(model, rows, placed, budget=budget):
        own[:, batch] = found
        done += len(batch)
        report("asking for facts", done, len(facts))
    report("scoring baselines", 0, 1)
    bigram = BigramModel.of(model, text, budget=budget)
    columns = {"": own, "bigram_": _bigram_facts(bigram, rows, answers), "majority_": _majority(facts, answers)}
    report("scoring baselines", 1, 1)
    values = {f"{name}{measure}": part[row] for name, part in columns.items() for row, measure in enumerate(_MEASURES)}
    said = ("top 1", "1 / rank", "log-probability (nats)")
    about = {"bigram_": f"of {bigram.note}", "majority_": "of guessing the relation's attributes, the most frequent first"}
    notes = dict(zip(_MEASURES, _FACT_NOTES, strict=True))
    notes |= {f"{name}{m}": f"{what} {how}" for name, how in about.items() for m, what in zip(_MEASURES, said, strict=True)}
    items, groups = tuple(fact.prompt for fact in facts), tuple(fact.relation for fact in facts)
    return BehaviourScores(model.name, "facts", items, groups, MappingProxyType(values), MappingProxyType(notes))


def _placed(scores: Float[Tensor, "row d_vocab"], answers: Tensor) -> Float[Tensor, "measure row"]:
    """Top 1, reciprocal rank and log-probability of the answers."""
    answers = answers.to(scores.device)[:, None]
    own = scores.gather(1, answers)
    rank = (scores >= own).sum(dim=1).double()
    likely = (own[:, 0] - scores.logsumexp(dim=1)).double()
    return torch.stack([(rank == 1).double(), 1 / rank, likely]).cpu()


def _bigram_facts(bigram: BigramModel, rows: list[list[int]], answers: Tensor) -> Float[Tensor, "measure fact"]:
    wanted: dict[int, list[int]] = {}
    for fact, row in enumerate(rows):
        wanted.setdefault(row[-1], []).append(fact)
    previous, found = list(wanted), torch.zeros(3, len(rows), dtype=torch.float64)

    def placed(batch: list[int], table: Tensor) -> list[Tensor]:
        """Where the answers of some facts stand, by the token that these end in."""
        parts = []
        for place, row in enumerate(batch):
            # A relation ends all of its facts in one token: they are looked up in one row of the table.
            own = table[place, answers[wanted[previous[row]]]]
            rank = torch.tensor([int((table[place] >= value).sum()) for value in own], dtype=torch.float64)
            parts.append(torch.stack([(rank == 1).double(), 1 / rank, own]))
        return parts

    for batch, parts in bigram.read_tables(previous, placed):
        for row, part in zip(batch, parts, strict=True):
            found[:, wanted[previous[row]]] = part
    return found


def _majority(facts: Sequence[Fact], answers: Tensor) -> Float[Tensor, "measure fact"]:
    """Each relation's attributes by their share of its facts; of equally frequent ones the first met goes first."""
    counts: dict[str, Counter[int]] = {}
    for fact, answer in zip(facts, answers.tolist(), strict=True):
        counts.setdefault(fact.relation, Counter())[answer] += 1
    ranks = {
        relation: {answer: rank for rank, (answer, _) in enumerate(found.most_common(), 1)}
        for relation, found in counts.items()
    }
    rank = torch.tensor([ranks[f.relation][a] for f, a in zip(facts, answers.tolist(), strict=True)], dtype=torch.float64)
    shares = [counts[f.relation][a] / counts[f.relation].total() for f, a in zip(facts, answers.tolist(), strict=True)]
    return torch.stack([(rank == 1).double(), 1 / rank, torch.tensor(shares, dtype=torch.float64).log()])


def _margin(good: Float[Tensor, " pair"], bad: Float[Tensor, " pair"], *, exact: bool) -> Float[Tensor, " pair"]:
    """Good less bad; 0 where the two are equal, or (unless `exact`) equal to the rounding of sums of float32."""
    rounding = 0.0 if exact else 8 * torch.finfo(torch.float32).eps * torch.maximum(good.abs(), bad.abs())
    return torch.where((good - bad).abs() <= rounding, 0.0, good - bad)


def _won(margin: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    return (margin > 0).double() + 0.5 * (margin == 0).double()


def _check(model: Model, items: Sequence[object], what: str) -> None:
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: {what} are texts")
    if not items:
        raise PromptError(f"there are no {what} to score")
