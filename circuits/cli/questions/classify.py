"""What `circuits classify` and its subcommands ask: which classifier, and of which texts."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.settings import Setting
from circuits.errors import PromptError

if TYPE_CHECKING:
    from circuits.uses.attributing.prompted import PromptedEndpoint, PromptedModel
    from circuits.uses.attributing.synonyms import Synonyms

PLANTED = "reviews with a planted shortcut"
"""What is used where no file is named."""


@dataclasses.dataclass(frozen=True)
class Labelled:
    """The texts that a classifier is trained on, and sets of others by their names."""

    name: str
    train: "circuits.uses.Examples"
    splits: "Mapping[str, circuits.uses.Examples]"
    planted: bool


def labelled_of(
    data: Path | None, tests: Sequence[Path], *, count: int | None, seed: int, rename: Sequence[str] = ()
) -> Labelled:
    """The texts of files, or those that are made where none is named. Of a file alone a fifth is held out; `count`: so many of
    the training texts, drawn; `rename`: other names of labels, `OLD=NEW`. Raises PromptError for tests without training texts,
    and what reading raises."""
    if data is None:
        if tests:
            raise PromptError("--test needs --data: which texts is the classifier trained on?")
        planted = (
            circuits.uses.planted_shortcut(seed=seed)
            if count is None
            else circuits.uses.planted_shortcut(count=count, seed=seed)
        )
        return Labelled(PLANTED, planted.train, planted.splits, True)
    names = names_of_labels(rename)
    read = circuits.uses.read_labelled(data, rename=names)
    splits = {_name(path, tests): circuits.uses.read_labelled(path, classes=read.classes, rename=names) for path in tests}
    order = list(range(len(read)))
    random.Random(seed).shuffle(order)
    aside = ""
    if not splits:
        held = max(2, len(order) // 5)
        aside = f" beside {held} that are held out, as there is no --test"
        splits, order = {"held out": read[sorted(order[:held])]}, order[held:]
    train = read[sorted(order[: count or len(order)])]
    if len(set(train.labels)) < 2:
        there = f"{len(train)} training texts of {len(set(train.labels))} classes{aside}"
        raise PromptError(f"{data}: {there}: expected two classes or more")
    return Labelled(data.name, train, splits, False)


def names_of_labels(rename: Sequence[str]) -> dict[str, str]:
    """What stands in place of which label. Raises PromptError for what is no `OLD=NEW`."""
    pairs = [one.partition("=") for one in rename]
    wrong = next((one for one, (old, _, new) in zip(rename, pairs, strict=True) if not old or not new), None)
    if wrong is not None:
        raise PromptError(f"--rename {wrong}: expected OLD=NEW, such as 0=negative")
    return {old.strip(): new.strip() for old, _, new in pairs}


def classifier_of(
    setting: Setting, file: Path | None, texts: Labelled, *, seed: int, progress: ProgressBars
) -> "circuits.uses.Classifier":
    """The saved classifier on its base model, or a head that is trained on the texts now. Raises ModelError for a file of
    another base, PromptError for labels that it does not know."""
    model = setting.load(progress)
    if file is None:
        return circuits.uses.train_head(model, texts.train, seed=seed, budget=setting.budget, progress=progress)
    found = circuits.uses.Classifier.load(file, model)
    texts.train.labelled(found.classes)
    return found


def _name(path: Path, tests: Sequence[Path]) -> str:
    """A file's name without what comes behind the point, or all of it where two would be called alike."""
    return path.stem if sum(other.stem == path.stem for other in tests) == 1 else str(path)


def drawn(examples: "circuits.uses.Examples", most: int, seed: int) -> "circuits.uses.Examples":
    """So many of some texts, or all of them, drawn, in their order: files are often sorted by label."""
    places = random.Random(seed).sample(range(len(examples)), min(most, len(examples)))
    return examples[sorted(places)]


def shown_texts(
    texts: Labelled, classifier: "circuits.uses.Classifier", count: int, *, seed: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """So many texts of the first set that is held out, drawn, with their labels as places in the classifier's classes."""
    held = next(iter(texts.splits.values())).labelled(classifier.classes)
    places = sorted(random.Random(seed).sample(range(len(held)), min(count, len(held))))
    return held[places].texts, held[places].labels


def synonyms_of(file: Path | None, texts: Labelled, model: "circuits.Model", read: Sequence[str]) -> "tuple[Synonyms, str]":
    """Words that may stand for those of some texts, and where they are from: a file, the reviews that are made, or the model's
    embeddings."""
    from circuits.uses.attributing.synonyms import embedded_synonyms, planted_synonyms, read_synonyms

    if file is not None:
        return read_synonyms(file), file.name
    if texts.planted:
        return planted_synonyms(), "opinions of one side, and things"
    words = sorted({word for text in read for word in text.split()})
    return embedded_synonyms(model, words), f"neighbours among the embeddings of {model.name}"


def asked_and_pool(
    texts: Labelled, classifier: "circuits.uses.Classifier", count: int, *, seed: int
) -> "tuple[circuits.uses.Examples, circuits.uses.Examples, str]":
    """So many texts of the first set that is held out, drawn, and those that a larger model may be shown, with what they are:
    the others of that set, or the training texts where these are fewer than the texts that are asked about."""
    name, held = next(iter(texts.splits.items()))
    held = held.labelled(classifier.classes)
    order = list(range(len(held)))
    random.Random(seed).shuffle(order)
    asked, rest = sorted(order[:count]), sorted(order[count:])
    if len(rest) > count:
        return held[asked], held[rest], f"{len(rest)} other texts of {name}"
    return held[asked], texts.train, f"the {len(texts.train)} training texts, as {name} has too few others"


def larger_of(name: str | None, base: "circuits.Model") -> "tuple[PromptedModel | PromptedEndpoint, str]":
    """Who is asked, and what that is called. Raises PromptError, or EndpointError for an address and ModelError for a folder,
    where there is nobody of this name."""
    from circuits.lenses.explaining.endpoint import Endpoint
    from circuits.uses.attributing.prompted import PromptedEndpoint, PromptedModel

    kind, _, rest = (name or "").partition(":")
    if name is None:
        return PromptedModel(base), base.name
    if kind == "endpoint":
        return PromptedEndpoint(Endpoint.parse(rest)), rest
    if kind == "model" and rest:
        model = circuits.load_model(rest)
        return PromptedModel(model), model.name
    raise PromptError(f"--larger {name}: expected model:DIR or endpoint:URL")
