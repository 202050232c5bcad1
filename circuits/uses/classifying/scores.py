"""How often a classifier is right, beside what takes no model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import share_interval
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierScores(Result, format="circuits-classifier-scores"):
    """Shares of texts that are told right, in several sets of texts, with 95 % intervals over texts (Wilson 1927)."""

    model: str
    weights_sha256: str
    """Of the classifier: its base's weights as trained, and its head."""
    classes: tuple[str, ...]
    trained: str
    """What of the weights was trained, and on how many texts."""
    splits: tuple[str, ...]
    texts: Int[Tensor, " split"]
    accuracy: Float[Tensor, " split"]
    low: Float[Tensor, " split"]
    high: Float[Tensor, " split"]
    loss: Float[Tensor, " split"]
    """Mean cross-entropy, nats."""
    majority: Float[Tensor, " split"]
    """Accuracy of the class that is most frequent among the training texts."""
    bag_of_words: Float[Tensor, " split"]
    """Accuracy of a logistic regression on counts of words and of pairs of neighbours, trained on the same texts."""
    recalls: Float[Tensor, "split class"]
    """Of each class, the share that is told right; 0 where a split has no text of it."""

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) != len(self.splits):
            raise CircuitsError("scores of no texts, or of two sets of one name")

    @property
    def summary(self) -> str:
        """Every set's accuracy beside the majority's and that of words alone."""
        said = [
            f"{row['split']} {row['accuracy']:.1%} [{row['low']:.1%}, {row['high']:.1%}] (majority {row['majority']:.1%}, "
            f"words {row['bag_of_words']:.1%})"
            for row in self.to_dataframe().to_dict("records")
        ]
        return f"classifier on {self.model}, {self.trained}: {'; '.join(said)}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a set of texts."""
        import pandas

        names = ("texts", "accuracy", "low", "high", "loss", "majority", "bag_of_words")
        recalls = {f"recall of {name}": self.recalls[:, place].tolist() for place, name in enumerate(self.classes)}
        return pandas.DataFrame({"split": self.splits, **{name: getattr(self, name).tolist() for name in names}, **recalls})


def score_classifier(
    classifier: Classifier,
    train: Examples,
    splits: Mapping[str, Examples],
    *,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> ClassifierScores:
    """Judge a classifier on texts that it was not trained on, beside the majority and a bag of words.

    Raises PromptError without splits and where a split's labels are none of the classifier's.

    Args:
        classifier: what is judged.
        train: what it was trained on, for what takes no model.
        splits: texts by the name under which they are listed.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if not splits:
        raise PromptError("no texts to judge a classifier on")
    known = {name: split.labelled(classifier.classes) for name, split in splits.items()}
    own = train.labelled(classifier.classes)
    guessed, most = BagOfWords.fit(own), max(range(len(own.classes)), key=list(own.counts.values()).__getitem__)
    rows: list[dict[str, float]] = []
    recalls = []
    for name, split in known.items():
        logits = classifier.logits(split.texts, budget=budget, progress=progress).double().cpu()
        labels = torch.tensor(split.labels)
        if not bool(logits.isfinite().all()):
            raise CircuitsError(f"{name}: the classifier's logits are NaN or infinite")
        right = logits.argmax(dim=1) == labels
        share = share_interval(float(right.double().mean()), len(split))
        rows.append(
            {
                "texts": len(split),
                "accuracy": share.effect,
                "low": share.low,
                "high": share.high,
                "loss": float(F.cross_entropy(logits, labels)),
                "majority": float((labels == most).double().mean()),
                "bag_of_words": float((guessed.predict(split.texts) == labels).double().mean()),
            }
        )
        recalls.append(_recalls(right, labels, len(own.classes)))
    columns = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    about = classifier.training
    return ClassifierScores(
        model=classifier.base,
        weights_sha256=classifier.model.fingerprint,
        classes=classifier.classes,
        trained=f"{'all weights' if classifier.tuned else 'head'} trained on {about.get('texts', len(train)):,} texts",
        splits=tuple(known),
        **{**columns, "texts": columns["texts"].long()},
        recalls=torch.stack(recalls),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class BagOfWords:
    """What the words alone tell: scikit-learn's logistic regression on their counts and those of pairs of neighbours."""

    counter: object
    regression: object

    @classmethod
    def fit(cls, examples: Examples) -> "BagOfWords":
        """Trained on these texts; words in small letters, each in two texts or more where there are enough texts."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        least = 2 if len(examples) > 50 else 1
        counter = CountVectorizer(ngram_range=(1, 2), min_df=least, token_pattern=r"(?u)\S+")
        regression = LogisticRegression(max_iter=1000).fit(counter.fit_transform(examples.texts), examples.labels)
        return cls(counter, regression)

    def predict(self, texts: Sequence[str]) -> Int[Tensor, " text"]:
        """The place of each text's likeliest class."""
        return torch.as_tensor(self.regression.predict(self.counter.transform(texts))).long()  # type: ignore[attr-defined]


def _recalls(right: Bool[Tensor, " text"], labels: Int[Tensor, " text"], classes: int) -> Float[Tensor, " class"]:
    counts = labels.bincount(minlength=classes)
    return torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, right.double()) / counts.clamp(min=1)
