"""Texts as prompts of a classifier: classes stand where tokens were answers."""

from collections.abc import Sequence

import torch

from circuits.errors import PromptError, shown
from circuits.tasks import PromptPairs
from circuits.uses.classifying.classifier import Classifier


def class_pairs(
    classifier: Classifier, texts: Sequence[str], classes: str | Sequence[str], *, corrupt: Sequence[str] | None = None
) -> PromptPairs:
    """Prompts whose answer is a class, held against all other classes: what runs, attributes and searches a model takes with
    `classifier.model`. Raises PromptError for a class that the classifier does not know, and where clean and corrupt texts are
    not as many tokens long.

    Args:
        classifier: what is asked.
        texts: the clean prompts, whole as `Classifier.tokens` reads them.
        classes: the class that all are asked for, or one a text.
        corrupt: other texts, token by token as long (default: the clean ones, where nothing is patched).
    """
    wanted = [classes] * len(texts) if isinstance(classes, str) else list(classes)
    unknown = next((name for name in wanted if name not in classifier.classes), None)
    if unknown is not None or len(wanted) != len(texts):
        said = f"the class {shown(unknown)}" if unknown is not None else f"{len(wanted)} classes of {len(texts)} texts"
        raise PromptError(f"{said}: expected such as {', '.join(classifier.classes)}, one a text")
    clean = classifier.tokens(texts)
    other = clean if corrupt is None else classifier.tokens(corrupt)
    if clean.mask.shape != other.mask.shape or not bool((clean.mask == other.mask).all()):
        raise PromptError("clean and corrupt texts are not as many tokens long: exchange words of as many tokens")
    rows = [classifier.classes.index(name) for name in wanted]
    rest = torch.tensor([[place for place in range(len(classifier.classes)) if place != row] for row in rows])
    answers = torch.tensor(rows, device=clean.ids.device)
    return PromptPairs(
        clean,
        other,
        answers,
        rest[:, 0].to(clean.ids.device),
        clean.last,
        labels=tuple(texts),
        distractor_sets=rest.to(clean.ids.device) if rest.shape[1] > 1 else None,
    )
