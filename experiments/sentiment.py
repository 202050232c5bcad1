"""What a sentiment classifier on a real model goes by: SST-2 for training, IMDB reviews and their contrast set for judging.

    python experiments/sentiment.py --data FOLDER [--model NAME] [--count 1000] [--judged 300] [--reviews 150] [--json]

The folder holds sst2-train.tsv, sst2-dev.tsv, imdb-test_original.tsv and imdb-test_contrast.tsv (Socher et al. 2013; Gardner et
al. 2020: the same reviews, changed by hand so that the label turns). A linear head is trained on sentences of SST-2. Told: how
often it is right, beside a bag of words, and how often on a review and on its changed twin; which words tell most of the label
and which of them it leans on; and what training without those of them that say nothing by themselves (`PLAIN`) changes.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.cli.progress import ProgressBars
from circuits.errors import CircuitsError
from circuits.models import Model, load_model
from circuits.statistics import bootstrap, share_interval
from circuits.uses import (
    Classifier,
    Examples,
    find_shortcuts,
    label_words,
    read_labelled,
    score_classifier,
    train_head,
    train_head_without,
    wishes_of,
)

NAMES = {"0": "Negative", "1": "Positive"}
PARTS = {"sentences": "sst2-dev.tsv", "reviews": "imdb-test_original.tsv", "changed": "imdb-test_contrast.tsv"}
HEAD = 0.01
"""The share of words that tell most of the label: text of people has many words."""
_WORDS = """
a an and are as at be been but by for from had has have he her his i if in into is it its like more most much my no not
of on one or our out she so some such than that the their them then there they this to too up very was we were what when
which who will with you your film films movie movies story plot character characters director cast performances
performance comedy drama n't 's
"""
PLAIN = frozenset(_WORDS.split())
"""Words that say nothing of a film by themselves."""


def read(folder: Path, *, count: int, judged: int, reviews: int, seed: int) -> tuple[Examples, dict[str, Examples]]:
    """The training sentences, and the sets to judge on; of reviews the same ones as they are and changed."""
    train = read_labelled(folder / "sst2-train.tsv", rename=NAMES)
    splits = {name: read_labelled(folder / file, classes=train.classes, rename=NAMES) for name, file in PARTS.items()}
    few = {name: drawn(split, judged if name == "sentences" else reviews, seed) for name, split in splits.items()}
    return drawn(train, count, seed), few


def drawn(examples: Examples, count: int, seed: int) -> Examples:
    """So many of them; of sets as large the same places."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    return examples[sorted(order[:count].tolist())]


def hits(classifier: Classifier, examples: Examples, progress: ProgressBars) -> torch.Tensor:
    """Which texts are told right."""
    return classifier.logits(examples.texts, progress=progress).argmax(dim=1).cpu() == torch.tensor(examples.labels)


def mended(base: Model, train: Examples, words: Sequence[str], classifier: Classifier) -> Classifier:
    """The head trained again so that these words move it little."""
    return train_head_without(base, train, wishes_of(train, without=words), longest=classifier.longest)


def measured(base: Model, train: Examples, splits: dict[str, Examples], seed: int, progress: ProgressBars) -> dict[str, Any]:
    """All figures."""
    classifier = train_head(base, train, seed=seed, progress=progress)
    scores = score_classifier(classifier, train, splits, progress=progress)
    right = {name: hits(classifier, split, progress) for name, split in splits.items()}
    both = share_interval(float((right["reviews"] & right["changed"]).double().mean()), len(right["reviews"]))
    found = find_shortcuts(classifier, train, splits["sentences"], head=HEAD, seed=seed, progress=progress)
    counted = label_words(train, head=HEAD)
    plain = [word for word in counted.words[: counted.head] if word in PLAIN]
    data: dict[str, Any] = {"scores": scores.to_dataframe().to_dict("records"), "both": both.as_json()}
    data |= {"leaned on": [one.word for one in found.words if one.leaned_on], "shortcuts": found.summary, "plain": plain}
    if plain:
        other = mended(base, train, plain, classifier)
        after = {name: hits(other, split, progress) for name, split in splits.items()}
        data["gains"] = {name: bootstrap(after[name].double() - right[name].double()).as_json() for name in splits}
    return data


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the four files")
    parser.add_argument("--model", default="mini", help="a bundled model, a directory or a hub name")
    parser.add_argument("--count", type=int, default=1000, help="training sentences")
    parser.add_argument("--judged", type=int, default=300, help="sentences to judge on")
    parser.add_argument("--reviews", type=int, default=150, help="reviews, as they are and changed")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    try:
        sizes = {"count": options.count, "judged": options.judged, "reviews": options.reviews, "seed": options.seed}
        train, splits = read(options.data, **sizes)
        with ProgressBars() as progress:
            start = time.perf_counter()
            data = measured(load_model(options.model), train, splits, options.seed, progress)
    except CircuitsError as error:
        raise SystemExit(f"Error: {error}") from None
    if options.json:
        print(json.dumps({**data, "seconds": time.perf_counter() - start}))
        return
    for row in data["scores"]:
        print(
            f"{row['split']:>10}: {row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}], words {row['bag_of_words']:.3f}"
        )
    print(f"a review and its changed twin: {data['both']}\n{data['shortcuts']}\nleaned on: {', '.join(data['leaned on'])}")
    print(f"without {', '.join(data['plain'])}:")
    for name, gain in data.get("gains", {}).items():
        print(f"{name:>10}: {gain['effect']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]")


if __name__ == "__main__":
    main()
