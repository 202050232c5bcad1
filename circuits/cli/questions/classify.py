"""What `circuits classify` and its subcommands ask: which classifier, and of which texts."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.settings import Setting
from circuits.errors import PromptError

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
    if not splits:
        held = max(2, len(order) // 5)
        splits, order = {"held out": read[sorted(order[:held])]}, order[held:]
    train = read[sorted(order[: count or len(order)])]
    if not train.labels or len(set(train.labels)) < 2:
        raise PromptError(
            f"{data}: {len(train)} training texts of {len(set(train.labels))} classes: expected two classes or more"
        )
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
