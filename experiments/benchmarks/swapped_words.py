"""Texts with a word swapped or taken out, read from that word on, against every one of them read whole.

    python experiments/benchmarks/swapped_words.py --data FOLDER [--model NAME] [--count 400] [--judged 100] [--rounds 2]

The folder holds sst2-train.tsv and sst2-dev.tsv (Socher et al. 2013); a linear head is trained on sentences of SST-2. Timed are
`find_shortcuts` (each word of the head of the list is swapped in the judged sentences that hold it, and another word in the
same ones) and `train_head_without` (each common word is taken out of each training sentence that holds it). Reference: the same
functions while every changed text is read whole, in batches of similar length. What they find must be the same. "tokens": those
that are read, as a share of the reference's.
"""

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.models import Model, load_model
from circuits.progress import Progress
from circuits.uses import Classifier, Examples, find_shortcuts, label_words, read_labelled, train_head, wishes_of
from circuits.uses.classifying.classifier import read_ends
from circuits.uses.regularising.frozen import train_head_without
from experiments.benchmarks.measure import seconds_of
from experiments.sentiment import HEAD, NAMES, PLAIN, drawn

CPU = torch.device("cpu")
USERS = ("circuits.uses.shortcuts.finding.read_changed", "circuits.uses.regularising.frozen.read_changed")
AT_MOST = 1e-3
"""By how much two margins may differ: float32, in another order."""


def read_whole(
    model: Model,
    rows: Sequence[Sequence[int]],
    changed: Sequence[tuple[int, Sequence[int]]],
    *,
    what: str,
    budget: int,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    """What the package does at less cost."""
    found = read_ends(model, [*rows, *(ids for _, ids in changed)], what=what, budget=budget, progress=progress)
    return found[: len(rows)], found[len(rows) :]


def timed(one: Callable[[Progress], Any], rounds: int) -> dict[str, Any]:
    """Both ways in turns: seconds, their ratio, the share of tokens that are read, and what came of each way."""
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    tokens, found = dict[str, int](), dict[str, Any]()

    def run(way: str) -> None:
        read: dict[str, int] = {}

        def heard(what: str, done: int, total: int) -> None:
            read[what] = total

        with contextlib.ExitStack() as stack:
            for name in USERS if way == "reference" else ():
                stack.enter_context(mock.patch(name, read_whole))
            seconds[way].append(seconds_of(lambda: found.update({way: one(heard)}), CPU))
        tokens[way] = sum(read.values())

    for turn in range(rounds):
        for way in ("ours", "reference") if turn % 2 else ("reference", "ours"):
            run(way)
    ratio = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["reference"], strict=True))
    said = {f"seconds, {way}": statistics.median(times) for way, times in seconds.items()}
    return {**said, "ratio": ratio, "tokens": tokens["ours"] / tokens["reference"], "found": found}


def apart(found: dict[str, Any]) -> float:
    """By how much the numbers of both ways differ at most."""
    both = [[[one.change.effect, one.flips.effect] for one in way.words] for way in found.values()]
    return float((torch.tensor(both[0]) - torch.tensor(both[1])).abs().max())


def measure(base: Model, train: Examples, judged: Examples, rounds: int) -> dict[str, dict[str, Any]]:
    """Both functions. Exits where they find something else than the reference."""
    classifier = train_head(base, train)
    counted = label_words(train, head=HEAD)
    plain = sorted(PLAIN & set(counted.words))
    wishes, texts = wishes_of(train, without=plain), judged.texts

    def swaps(heard: Progress) -> Any:
        return find_shortcuts(classifier, train, judged, head=HEAD, progress=heard)

    def heads(heard: Progress) -> Classifier:
        return train_head_without(base, train, wishes, progress=heard)

    found = {"find_shortcuts": timed(swaps, rounds), "train_head_without": timed(heads, rounds)}
    differ = apart(found["find_shortcuts"].pop("found"))
    ways = [one.logits(texts) for one in found["train_head_without"].pop("found").values()]
    differ = max(differ, float((ways[0] - ways[1]).abs().max()))
    if differ > AT_MOST:
        raise SystemExit(f"both ways differ by {differ:.2g}, expected at most {AT_MOST}")
    return found


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the two files")
    parser.add_argument("--model", default="mini", help="a bundled model, a directory or a hub name")
    parser.add_argument("--count", type=int, default=400, help="training sentences")
    parser.add_argument("--judged", type=int, default=100, help="sentences that words are swapped in")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train = read_labelled(options.data / "sst2-train.tsv", rename=NAMES)
    judged = read_labelled(options.data / "sst2-dev.tsv", classes=train.classes, rename=NAMES)
    base = load_model(options.model)
    found = measure(base, drawn(train, options.count, 0), drawn(judged, options.judged, 0), options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.count} training sentences, {options.judged} judged, {options.model}, {options.threads} threads")
    for name, one in found.items():
        both = f"{one['seconds, ours']:.1f} s, reference {one['seconds, reference']:.1f} s"
        print(f"{name:<20} {both}, ratio {one['ratio']:.2f}, tokens {one['tokens']:.0%}")


if __name__ == "__main__":
    main()
