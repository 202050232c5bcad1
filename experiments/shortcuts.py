"""A planted shortcut is found, healed by regularisation, and healed by ten items of feedback.

    python experiments/shortcuts.py [--found 20] [--heads 5] [--healed 5] [--feedback 5] [--first 0] [--texts 480] [--epochs 3]
        [--rationale removal] [--json]

Reviews in which a day of the week goes along with the label (`planted_shortcut`), on the bundled model. Found: a linear head is
trained on the reviews of each seed; are the two days the words that it leans on outside of the rationales, and no other word?
And without rationales, are they those whose swap changes most predictions? Heads: the words that were found are held to
move a head that is trained again little. Healed: all weights are trained with and without the penalty for going by other words
than the rationales, seed by seed. Feedback: what is said of ten words (the days should
not matter, eight opinions should), applied to the classifier that plain training gave. Strengths were chosen on seed 100."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.errors import CircuitsError
from circuits.models import Model, load_model
from circuits.statistics import t_interval
from circuits.uses import (
    Classifier,
    Recipe,
    Regularisation,
    er_test,
    find_shortcuts,
    planted_shortcut,
    train_all,
    train_head,
    train_head_without,
    wishes_of,
)
from circuits.uses.classifying.planted import BAD, DAYS, GOOD
from circuits.uses.feedback import Feedback, FeedbackItem, apply_feedback
from circuits.uses.shortcuts.early import accuracy_of
from circuits.uses.shortcuts.label_words import form_of

PLANTED = {form_of(day) for day in DAYS}
ITEMS = (*(FeedbackItem(day, False) for day in sorted(PLANTED)), *(FeedbackItem(word, True) for word in (*GOOD[:4], *BAD[:4])))


def found(model: Model, seeds: range, texts: int) -> dict[str, Any]:
    """In how many seeds the planted words are found, alone; and what swapping them costs."""
    exact, first, favoured, falls = 0, 0, 0, []
    for seed in seeds:
        planted = planted_shortcut(count=texts, seed=seed)
        classifier = train_head(model, planted.train, seed=seed)
        one = find_shortcuts(classifier, planted.train, planted.held_out, seed=seed)
        exact += set(one.shortcuts) == PLANTED
        bare = dataclasses.replace(planted.held_out, rationales=())
        first += set(find_shortcuts(classifier, planted.train, bare, seed=seed).leaned_on[:2]) == PLANTED
        favoured += any(word.favoured for word in one.words if word.word in PLANTED)
        print(f"seed {seed}: {one.summary}", file=sys.stderr, flush=True)
        falls.append([one.accuracy[name].effect for name in ("as they are", "random", "flipped")])
    means = [sum(column) / len(column) for column in zip(*falls, strict=True)]
    return {
        "seeds": len(seeds),
        "both days and nothing else are found": exact,
        "without rationales both days change most predictions": first,
        "a day is the top attributed word more often than by chance": favoured,
        "accuracy as they are, random, flipped": means,
    }


def healed(model: Model, seeds: range, options: argparse.Namespace) -> dict[str, Any]:
    """Gains of regularisation by test, and of feedback by split; both over seeds."""
    how = Regularisation(rationale=options.rationale, distance=options.distance, strength=options.strength)
    recipe, gains = Recipe(epochs=options.epochs), []

    def make(seed: int) -> Any:
        planted = planted_shortcut(count=options.texts, seed=seed)
        return planted.train, planted.splits

    def loop(seed: int, plain: Classifier, held: Classifier) -> None:
        flipped = planted_shortcut(count=options.texts, seed=seed).flipped
        right = [accuracy_of(one, flipped).effect for one in (plain, held)]
        print(f"seed {seed}: right on flipped texts {right[0]:.3f}, regularised {right[1]:.3f}", file=sys.stderr, flush=True)
        if seed - options.first < options.feedback:
            gains.append(_feedback(model, plain, seed, options))

    test = er_test(model, make, how=how, recipe=recipe, seeds=tuple(seeds), seen=loop)
    said: dict[str, Any] = {"regularised": test.to_dataframe().to_dict("records"), "summary": test.summary}
    said |= {"feedback, each seed": gains}
    if len(gains) > 1:
        import torch

        pairs = torch.tensor([[one[name][1] - one[name][0] for name in gains[0]] for one in gains])
        said |= {"feedback": {name: vars(t_interval(pairs[:, at])) for at, name in enumerate(gains[0])}}
    return said


def _feedback(model: Model, plain: Classifier, seed: int, options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    planted = planted_shortcut(count=options.texts, seed=seed)
    how = Regularisation(rationale=options.rationale, distance=options.distance, strength=options.feedback_strength)
    recipe = Recipe(epochs=options.epochs, seed=seed)
    given = Feedback(plain.model.fingerprint, ITEMS)
    effects, _ = apply_feedback(model, plain, planted.train, planted.splits, given, how=how, recipe=recipe)
    print(f"seed {seed}: {effects.summary}", file=sys.stderr, flush=True)
    both = zip(effects.splits, effects.before, effects.after, strict=True)
    return {name: (before.effect, after.effect) for name, before, after in both}


def heads(model: Model, seeds: range, texts: int) -> dict[str, Any]:
    """Linear heads trained again without what the words that were found do, and after feedback on ten words (`ITEMS`): by how
    much more they are right, over seeds."""
    import torch

    rows = []
    for seed in seeds:
        planted = planted_shortcut(count=texts, seed=seed)
        plain = train_head(model, planted.train, seed=seed)
        words = find_shortcuts(plain, planted.train, planted.held_out, seed=seed).shortcuts
        unmarked = dataclasses.replace(planted.train, rationales=())
        mended = train_head_without(model, unmarked, wishes_of(unmarked, without=words), seed=seed)
        given = Feedback(plain.model.fingerprint, ITEMS)
        _, fed = apply_feedback(model, plain, planted.train, planted.splits, given)
        every = (plain, mended, fed)
        rows.append({name: [accuracy_of(one, split).effect for one in every] for name, split in planted.splits.items()})
        print(f"seed {seed}: without {', '.join(words)}: {rows[-1]}", file=sys.stderr, flush=True)
    told = torch.tensor([[row[name] for name in rows[0]] for row in rows], dtype=torch.float64)
    means = {name: told[:, at].mean(dim=0).tolist() for at, name in enumerate(rows[0])}
    said: dict[str, Any] = {"seeds": len(rows), "plain, mended and after feedback": means}
    for way, what in ((1, "gains when mended"), (2, "gains after feedback")):
        said[what] = {name: vars(t_interval(told[:, at, way] - told[:, at, 0])) for at, name in enumerate(rows[0])}
    return said


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, by name."""
    model = load_model(options.model)
    said: dict[str, Any] = {}
    if options.found:
        said["found"] = found(model, range(options.first, options.first + options.found), options.texts)
    if options.heads:
        said["heads"] = heads(model, range(options.first, options.first + options.heads), options.texts)
    if options.healed:
        said["healed"] = healed(model, range(options.first, options.first + options.healed), options)
    elif options.feedback:
        loops = []
        for seed in range(options.first, options.first + options.feedback):
            train = planted_shortcut(count=options.texts, seed=seed).train
            plain = train_all(model, train, recipe=Recipe(epochs=options.epochs, seed=seed))
            loops.append(_feedback(model, plain, seed, options))
        said["feedback, each seed"] = loops
    return said


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    for name, usual in (
        ("found", 20),
        ("heads", 5),
        ("healed", 5),
        ("feedback", 5),
        ("first", 0),
        ("texts", 480),
        ("epochs", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--rationale", default="removal")
    parser.add_argument("--distance", default="mse")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--feedback-strength", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        said = measure(options)
    except CircuitsError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(said, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
