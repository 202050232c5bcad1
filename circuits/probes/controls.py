"""What a probe is held against: labels that no model can know, and answers that need no model."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.probes.splitting import Split

WINDOW = 2
"""Words before and behind that the baseline of neighbours sees."""


@dataclasses.dataclass(frozen=True, eq=False)
class WordTypes:
    """Words as types: upper and lower case are different ones, as for the model."""

    numbers: Int[Tensor, " word"]
    count: int

    @classmethod
    def of(cls, forms: Sequence[str]) -> "WordTypes":
        """The type of each word."""
        index: dict[str, int] = {}
        numbers = [index.setdefault(form, len(index)) for form in forms]
        return cls(torch.tensor(numbers), len(index))

    def control(self, labels: Int[Tensor, " word"], *, seed: int = 0) -> Int[Tensor, " word"]:
        """The control task (Hewitt & Liang 2019): every type is given one label, drawn once from the labels as often as words
        have them. A probe can solve it only by knowing the words by heart. Words without a label have none here either."""
        known = labels[labels >= 0]
        generator = torch.Generator().manual_seed(seed)
        drawn = known[torch.randint(len(known), (self.count,), generator=generator)]
        return torch.where(labels >= 0, drawn[self.numbers], labels)

    def seen(self, train: Int[Tensor, " train"], others: Int[Tensor, " other"]) -> Tensor:
        """Which of the others are of a type that is trained on."""
        known = torch.zeros(self.count, dtype=torch.bool)
        known[self.numbers[train]] = True
        return known[self.numbers[others]]


def majority(types: WordTypes, labels: Int[Tensor, " word"], split: Split) -> Int[Tensor, " judge"]:
    """What each judged word most often is: its type's most frequent label among the words trained on, of an unknown type the
    most frequent of all; of equal ones the more frequent label."""
    classes = int(labels.max()) + 1
    counts = torch.zeros(types.count, classes)
    counts.index_put_((types.numbers[split.train], labels[split.train]), torch.ones(len(split.train)), accumulate=True)
    counts += 0.5 * counts.sum(dim=0) / len(split.train)
    return counts.argmax(dim=1)[types.numbers[split.judge]]


def from_neighbours(
    forms: Sequence[str], sentence: Int[Tensor, " word"], labels: Int[Tensor, " word"], split: Split
) -> Int[Tensor, " judge"]:
    """What a logistic regression says that sees the words alone: which one it is, and the two before and behind it in its
    sentence (Kunz & Kuhlmann 2020), with the penalty that is best on the development words. Identities are one-hot; those of
    one training word alone are left out."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    names = _neighbours(forms, sentence.tolist())
    counts = Counter(name for word in split.train.tolist() for name in names[word])
    index = {name: number for number, name in enumerate(name for name, count in counts.items() if count > 1)}
    rows = [[index[name] for name in row if name in index] for row in names]
    starts = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0).numpy()
    flat = [number for row in rows for number in row]
    x = csr_matrix(([1.0] * len(flat), flat, starts), shape=(len(rows), max(1, len(index))))
    train, develop, judge = (part.numpy() for part in (split.train, split.develop, split.judge))
    best, answer = -1.0, torch.zeros(0)
    for strength in (0.3, 1.0, 3.0):
        fitted = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x[train], labels[split.train].numpy())
        right = float((fitted.predict(x[develop]) == labels[split.develop].numpy()).mean())
        if right > best:
            best, answer = right, torch.from_numpy(fitted.predict(x[judge]))
    return answer


def _neighbours(forms: Sequence[str], sentence: Sequence[int]) -> list[list[str]]:
    """Of each word the identities that are seen, each with where it stands."""
    found = []
    for place, number in enumerate(sentence):
        near = range(place - WINDOW, place + WINDOW + 1)
        inside = [at for at in near if 0 <= at < len(forms) and sentence[at] == number]
        found.append([f"{at - place:+d} {forms[at]}" for at in inside])
    return found
