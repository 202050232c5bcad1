"""What prompts have drawn out of a model, beside what they draw out of one that knows nothing."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.probes.results import SURE
from circuits.statistics import clustered_errors

if TYPE_CHECKING:
    import pandas

KINDS = ("typed", "trained", "random weights", "random embeddings", "majority")
"""The model asked by the typed prompt and by trained vectors; the same architecture with random weights, and the model with
random embeddings, asked by vectors trained on them alike; the relation's most frequent object."""
UNASKED = -1
EVERYTHING, HARD = "all facts", "hard facts"


@dataclasses.dataclass(frozen=True, eq=False)
class PromptProbes(Result, format="circuits-prompt-probes"):
    """Facts that a model completes, asked by typed prompts (Petroni et al. 2019) and by trained vectors (OptiPrompt, Zhong et
    al. 2021), answers restricted to the relation's objects; all are judged on the same facts, which nothing was trained on."""

    model: str
    weights_sha256: str
    relations: tuple[str, ...]
    objects: tuple[int, ...]
    """How many objects each relation has."""
    vectors: int
    """Prompt vectors behind a subject."""
    epochs: int
    """How often each fact was trained on at most."""
    seeds: tuple[int, ...]
    subjects: tuple[str, ...]
    """Of each fact, as its object (`attributes`) and the place of its relation (`relation_of`)."""
    attributes: tuple[str, ...]
    relation_of: Int[Tensor, " fact"]
    right: Int[Tensor, "kind fact seed"]
    """Of each of `KINDS` whether its answer was right: 1 or 0; -1 where the fact was not judged on by that seed, or nobody
    asked."""
    left_out: dict[str, int]
    """Facts that were not used, by reason."""

    def __post_init__(self) -> None:
        facts = len(self.subjects)
        if self.right.shape != (len(KINDS), facts, len(self.seeds)) or not bool(self.judged.any()):
            raise CircuitsError("probes by prompts need an answer of each kind to each fact, and facts that were judged on")
        if not len(self.attributes) == len(self.relation_of) == facts or len(self.objects) != len(self.relations):
            raise CircuitsError("probes by prompts need a subject, an object and a relation a fact")

    @property
    def judged(self) -> Bool[Tensor, "fact seed"]:
        """Where a fact was judged on."""
        return self.right[KINDS.index("majority")] != UNASKED

    @property
    def hard(self) -> Bool[Tensor, "fact seed"]:
        """Of these, what no control gets right: neither the majority nor vectors trained on random weights or embeddings."""
        return self.judged & (self.right[2:] != 1).all(dim=0)

    @property
    def with_random(self) -> bool:
        """Whether the random models were asked."""
        return bool((self.right[2] != UNASKED).any())

    def accuracy(self, kind: str, part: str = EVERYTHING) -> tuple[float, float]:
        """The share of judged facts that a kind of prompt gets right, and its standard error, a fact's several seeds taken
        together; of a relation, of "all facts", or of the "hard facts". NaN where there is none. Raises KeyError for other
        names."""
        if kind not in KINDS or part not in (EVERYTHING, HARD, *self.relations):
            there = ", ".join((EVERYTHING, HARD, *self.relations))
            raise KeyError(f"no {kind!r} of {part!r}: there are {', '.join(KINDS)} of {there}")
        asked = self.hard if part == HARD else self.judged
        if part in self.relations:
            asked = asked & (self.relation_of == self.relations.index(part))[:, None]
        found = self.right[KINDS.index(kind)]
        return _share(found == 1, asked & (found != UNASKED))

    @property
    def only_trained(self) -> tuple[float, float]:
        """The share of judged facts that the trained prompt gets right and the typed one does not, with its error."""
        return _share((self.right[1] == 1) & (self.right[0] == 0), self.judged)

    @property
    def beyond_random(self) -> tuple[float, float]:
        """The share of judged facts that only the trained prompt gets right and vectors trained on random weights do not: what
        such prompts show the model to know, rather than to learn. NaN where no random weights were asked."""
        found = (self.right[1] == 1) & (self.right[0] == 0) & (self.right[2] == 0)
        return _share(found, self.judged & (self.right[2] != UNASKED))

    @property
    def summary(self) -> str:
        """The kinds of prompts beside each other."""
        shares = {kind: self.accuracy(kind) for kind in KINDS}
        said = ", ".join(
            f"{kind} {share:.1%} ± {SURE * error:.1%}" for kind, (share, error) in shares.items() if share == share
        )
        beyond, error = self.beyond_random
        more = (
            "" if math.isnan(beyond) else f" {beyond:.1%} ± {SURE * error:.1%} only the trained prompt gets right, and RM not."
        )
        return f"{self.model}: held-out facts of {len(self.relations)} relations got right by prompts: {said}.{more}"

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a relation, then one of all and one of the hard facts."""
        import pandas

        rows: list[dict[str, Any]] = []
        for part in (*self.relations, EVERYTHING, HARD):
            asked = self.hard if part == HARD else self.judged
            of = part in self.relations
            own = asked & (self.relation_of == self.relations.index(part))[:, None] if of else asked
            row: dict[str, Any] = {"relation": part, "facts": int(own.any(dim=1).sum()), "answers": int(own.sum())}
            row |= {"objects": self.objects[self.relations.index(part)] if of else sum(self.objects)}
            for kind in KINDS:
                share, error = self.accuracy(kind, part)
                name = kind.replace(" ", "_")
                row |= {name: share, f"{name}_error": error}
            rows.append(row)
        return pandas.DataFrame(rows)


def _share(right: Bool[Tensor, "fact seed"], asked: Bool[Tensor, "fact seed"]) -> tuple[float, float]:
    """How many of those asked, and the standard error by fact."""
    if not bool(asked.any()):
        return math.nan, math.nan
    fact = torch.arange(len(asked))[:, None].expand_as(asked)[asked]
    values = right[asked].double()[:, None]
    return float(values.mean()), float(clustered_errors(values, fact)[0])
