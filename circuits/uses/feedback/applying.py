"""The loop: explanations are shown, people say what is wrong with them, and the classifier is trained again with that."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import Effect, bootstrap
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples, marked_words
from circuits.uses.classifying.training import Recipe
from circuits.uses.feedback.again import Again, check_texts, control_of
from circuits.uses.feedback.items import Feedback, FeedbackItem
from circuits.uses.feedback.results import FeedbackEffects, WordChange
from circuits.uses.regularising.penalty import Regularisation
from circuits.uses.shortcuts.attributed import Attributed, attributed
from circuits.uses.shortcuts.early import accuracy_of, hits
from circuits.uses.shortcuts.label_words import form_of, label_words

SHOWN = 8
"""Texts whose prediction changed that are kept, at most."""


def proposed(classifier: Classifier, examples: Examples, *, most: int = 10, head: float = 0.05) -> Feedback:
    """Feedback to be looked through and corrected: the words that tell most of the label and that the classifier goes by most,
    each as an item that says it should not matter; where there are rationales, only words outside of them.

    Args:
        classifier: whose explanations are asked about.
        examples: labelled texts, such as those that it was trained on.
        most: items, at most.
        head: the share of words that tell most of the label.
    """
    counted = label_words(examples.labelled(classifier.classes), head=head)
    there = attributed(classifier, examples.texts, classifier.logits(examples.texts).argmax(dim=1))
    sums: dict[str, float] = {}
    for row, (forms, values) in enumerate(zip(there.forms, _shares(there), strict=True)):
        marked = marked_words((examples.rationales[row] if examples.rationales else None) or ())
        for place, (form, value) in enumerate(zip(forms, values.tolist(), strict=True)):
            if form in counted.in_head and place not in marked:
                sums[form] = sums.get(form, 0.0) + value
    ranked = sorted(sums, key=lambda form: -sums[form])[:most]
    return Feedback(classifier.model.fingerprint, tuple(FeedbackItem(form, False) for form in ranked))


def apply_feedback(
    base: Model,
    classifier: Classifier,
    train: Examples,
    splits: Mapping[str, Examples],
    feedback: Feedback,
    *,
    how: Regularisation | None = None,
    recipe: Recipe | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> tuple[FeedbackEffects, Classifier]:
    """Train again, from the base model on, held to what people said of a classifier's explanations (XMD, Lee et al. 2022), and
    tell what has changed. It is trained as the classifier was: all weights by its own recipe, and a head that was fitted is
    fitted again (`train_head_without`, which asks nothing of words that should matter). Beside it stands a control that is
    trained in the same way with a strength of 0: what that changes, no feedback did.

    Raises ModelError for feedback for another classifier; PromptError where none of it is about these texts, for other texts
    than those that the classifier was trained on, and for a recipe or a rationale that a fitted head does not have.

    Args:
        base: the language model that the classifier stands on.
        classifier: the one that the feedback is about.
        train: the texts that it was trained on; their own rationales are not used.
        splits: texts that both are judged on, by name; attributions are those of the first.
        feedback: what people said.
        how: the rationale, the distance and the strength of the penalty (default: of removal).
        recipe: steps, rates and seed, where they are to be others than the classifier's own.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    feedback.check(classifier)
    check_texts(classifier, train)
    way = Again.of(classifier, how=how, recipe=recipe)
    train = train.labelled(classifier.classes)
    wishes, unused = feedback.wishes(train)
    again = way.train(base, train, wishes, longest=classifier.longest, budget=budget, progress=progress)
    control = control_of(classifier, way, base, train, wishes, budget=budget, progress=progress)
    judged = next(iter(splits.values()))
    right = [[hits(one, split).double() for split in splits.values()] for one in (classifier, control, again)]
    changed = [
        int((classifier.logits(one.texts).argmax(1) != again.logits(one.texts).argmax(1)).sum()) for one in splits.values()
    ]
    some, said = _changed(classifier, again, judged)
    found = FeedbackEffects(
        model=base.name,
        before_sha256=classifier.model.fingerprint,
        after_sha256=again.model.fingerprint,
        items=len(feedback.items),
        unused=tuple(item.word for item in unused),
        told=sum(bool(one) for one in wishes),
        strength=way.how.strength,
        splits=tuple(splits),
        before=tuple(accuracy_of(classifier, split) for split in splits.values()),
        after=tuple(accuracy_of(again, split) for split in splits.values()),
        gains=tuple(bootstrap(after - before) for before, _, after in zip(*right, strict=True)),
        changed=tuple(changed),
        words=_words(classifier, again, judged, feedback, budget, progress),
        texts=some,
        predictions=said,
        trained=way.summary,
        control=tuple(accuracy_of(control, split) for split in splits.values()),
        over_control=tuple(bootstrap(after - middle) for _, middle, after in zip(*right, strict=True)),
    )
    return found, again


def _words(
    before: Classifier, after: Classifier, judged: Examples, feedback: Feedback, budget: int, progress: Progress | None
) -> tuple[WordChange, ...]:
    """What words of the feedback are attributed before and after, in texts that hold them."""
    both = []
    for one in (before, after):
        labels = one.logits(judged.texts, budget=budget).argmax(dim=1)
        both.append(attributed(one, judged.texts, labels, budget=budget, progress=progress))
    found = []
    for form, matters in dict.fromkeys((form_of(item.word), item.matters) for item in feedback.items):
        shares = [torch.tensor(_of_word(some, form), dtype=torch.float64) for some in both]
        if len(shares[0]):
            effects: list[Effect] = [bootstrap(values) for values in (*shares, shares[1] - shares[0])]
            found.append(WordChange(form, matters, len(shares[0]), *effects))
    return tuple(found)


def _of_word(some: Attributed, form: str) -> list[float]:
    """A word's share in each text that holds it."""
    found = []
    for forms, values in zip(some.forms, _shares(some), strict=True):
        places = [place for place, other in enumerate(forms) if other == form]
        found += [float(values[places].sum())] if places else []
    return found


def _shares(some: Attributed) -> list[Float[Tensor, " word"]]:
    """The size of each word's number over those of all words of its text."""
    return [values.abs() / values.abs().sum().clamp(min=1e-30) for values in some.values]


def _changed(before: Classifier, after: Classifier, judged: Examples) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Texts whose prediction changed, those first of which the new one is surest."""
    old, new = (one.logits(judged.texts).double().softmax(dim=1).cpu() for one in (before, after))
    rows = (old.argmax(1) != new.argmax(1)).nonzero()[:, 0].tolist()
    rows = sorted(rows, key=lambda row: -float(new[row].max()))[:SHOWN]
    names = after.classes
    said = tuple((names[int(old[row].argmax())], names[int(new[row].argmax())]) for row in rows)
    return tuple(judged.texts[row] for row in rows), said
