"""Training a classifier once more as it was trained, held to feedback or to nothing."""

import dataclasses
from typing import Any

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.uses.classifying.classifier import LONGEST, Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.training import Recipe, sha256_of
from circuits.uses.regularising.frozen import train_head_without
from circuits.uses.regularising.guidance import Wishes
from circuits.uses.regularising.penalty import Regularisation, train_regularised
from circuits.uses.regularising.rationales import REMOVAL


@dataclasses.dataclass(frozen=True)
class Again:
    """How a classifier is trained once more: by the recipe that it was trained by, or fitted, as `train_head` fits a head."""

    how: Regularisation
    recipe: Recipe | None
    """None: a head is fitted."""
    tuned: bool
    seed: int
    """That of a fitted head, by which a fifth of the texts is drawn that chooses its penalty."""

    @classmethod
    def of(cls, classifier: Classifier, *, how: Regularisation | None = None, recipe: Recipe | None = None) -> "Again":
        """The way of a classifier. Raises PromptError for a recipe, or a rationale, that a fitted head does not have."""
        own, how = recipe_of(classifier), how or Regularisation()
        if own is None:
            if recipe is not None or how.rationale not in (REMOVAL, "gradient") or how.distance != "mse":
                raise PromptError(
                    "the classifier is a head that was fitted: it is fitted again, by no recipe, and held by removal or "
                    f"gradient with mse; got {how.rationale}, {how.distance} and {'a' if recipe else 'no'} recipe"
                )
        else:
            how.check_reach("all" if classifier.tuned else "head")
        return cls(how, recipe or own, classifier.tuned, int(classifier.training.get("seed", 0)))

    @property
    def summary(self) -> str:
        """In words."""
        asked = "; of words that should matter it is asked nothing" if self.how.rationale == REMOVAL else ""
        if self.recipe is None:
            return f"a head, fitted as it was (seed {self.seed}){asked}"
        what, recipe = "all weights" if self.tuned else "a head", self.recipe
        return f"{what}, {recipe.epochs} epochs, rate {recipe.rate:g}, seed {recipe.seed}{asked}"

    def train(
        self,
        base: Model,
        train: Examples,
        wishes: Wishes,
        *,
        longest: int = LONGEST,
        budget: int = BUDGET,
        progress: Progress | None = None,
    ) -> Classifier:
        """Train from the base model on."""
        if self.recipe is not None:
            only = "all" if self.tuned else "head"
            options: dict[str, Any] = {"how": self.how, "recipe": self.recipe, "only": only}
            return train_regularised(base, train, wishes, longest=longest, progress=progress, **options)
        by = "removal" if self.how.rationale == REMOVAL else "gradient"
        options = {"by": by, "strength": self.how.strength, "seed": self.seed, "longest": longest, "budget": budget}
        return train_head_without(base, train, wishes, progress=progress, **options)

    def plain(self, train: Examples) -> dict[str, Any]:
        """What `Classifier.training` says after a training in this way that is held to nothing, as far as that decides it."""
        said: dict[str, Any] = {"trained": "all" if self.tuned else "head", "data": sha256_of(train)}
        return said | ({"seed": self.seed} if self.recipe is None else dataclasses.asdict(self.recipe))


def recipe_of(classifier: Classifier) -> Recipe | None:
    """The recipe that a classifier was trained by, as far as it says so; None for a head that was fitted."""
    said = classifier.training
    if not classifier.tuned and "epochs" not in said:
        return None
    names = [field.name for field in dataclasses.fields(Recipe) if field.name in said]
    return Recipe(**{name: said[name] for name in names})


def control_of(
    classifier: Classifier,
    way: Again,
    base: Model,
    train: Examples,
    wishes: Wishes,
    *,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Classifier:
    """A classifier that is trained in the same way with a strength of 0: the classifier itself where it was so."""
    said, expected = classifier.training, way.plain(train)
    held = "strength" in said or isinstance(said.get("penalty"), dict)
    if not held and all(said.get(name) == value for name, value in expected.items()):
        return classifier
    free = dataclasses.replace(way, how=dataclasses.replace(way.how, strength=0.0))
    return free.train(base, train, wishes, longest=classifier.longest, budget=budget, progress=progress)


def check_texts(classifier: Classifier, train: Examples) -> None:
    """Raise PromptError for other texts than those that a classifier says it was trained on."""
    said = classifier.training.get("data")
    if said is not None and said not in (sha256_of(train), sha256_of(train.labelled(classifier.classes))):
        raise PromptError(
            f"the classifier was trained on other texts than these {len(train)}: give those, drawn and labelled as they were"
        )
