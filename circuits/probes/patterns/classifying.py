"""Which pattern each head's attention maps have (Kovaleva et al. 2019; Clark et al. 2019)."""

import itertools
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.heads.text_loss import text_batches
from circuits.models import Model
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.probes.patterns.made import made_maps
from circuits.probes.patterns.marks import CLASSES, MapMarks, delimiter_ids, rows_of
from circuits.probes.patterns.results import HeadPatterns
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.statistics import Effect, share_interval, t_interval

TREES, DEPTH = 60, 8
MADE = 1600
"""Maps that are made, half of them to train on."""
PROMPTS = 16
"""Prompts that maps are made on at most."""


def probe_heads(
    model: Model,
    tokens: Prompts,
    *,
    delimiters: Collection[int] | None = None,
    made: int = MADE,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> HeadPatterns:
    """Which pattern each head has: self, previous, first, delimiter, same (earlier copies of the token), after same (what
    followed those: induction), block (all since the last delimiter), mixed.

    A classifier sees a few numbers of a map, its weight on the keys of each pattern beside what keys alike would have there,
    its entropy and its largest weight; it is a forest of shallow trees, trained on maps that are made with noise on half of the
    prompts, and judged on maps made on the other half. Then it tells every map of every head, one a prompt: a head has shares
    of patterns. A pattern says where a head looks, not what it does: `prune_heads` asks what is lost without it.

    Raises PromptError for fewer than two prompts, prompts shorter than 8 tokens or of several lengths, and too few maps.

    Args:
        model: the model whose heads are looked at.
        tokens: prompts of one length (`circuits.tasks.sources.corpus.text_rows`).
        delimiters: tokens that end a block (default: punctuation and line breaks, by the model's tokenizer). Where none is in
            the text, delimiters and blocks are no classes.
        made: maps that are made.
        seed: that of the maps and of the trees.
        budget: bytes of runs that are held at once.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    from sklearn.ensemble import RandomForestClassifier

    batch, report = rows_of(model, model.prepare(tokens)), progress or silent
    if made < 20 * len(CLASSES):
        raise PromptError(f"made={made}: expected {20 * len(CLASSES)} maps or more")
    ends = delimiter_ids(model, batch) if delimiters is None else delimiters
    marks = MapMarks.of(batch.ids.cpu(), ends, causal=model.weights.causal)
    report("making maps", 0, 1)
    rows, right = _made_rows(marks, made, seed)
    split = len(rows) // 2
    forest = RandomForestClassifier(n_estimators=TREES, max_depth=DEPTH, random_state=seed)
    forest.fit(rows[:split].numpy(), right[:split].numpy())
    told = torch.from_numpy(forest.predict(rows[split:].numpy()))
    report("making maps", 1, 1)
    known = torch.tensor([CLASSES.index(name) for name in marks.classes])
    confusion = _counted(right[split:], told)[known][:, known]
    shares = _shares(model, batch, marks, forest, budget, report)
    accuracy = _by_prompt(told == right[split:], min(len(batch) // 2, PROMPTS // 2))
    about: dict[str, Any] = {"prompts": len(batch), "tokens": batch.ids.shape[1], "seed": seed}
    return HeadPatterns(model.name, model.fingerprint, marks.classes, shares[..., known], accuracy, confusion, **about)


def _by_prompt(right: Bool[Tensor, " map"], prompts: int) -> Effect:
    """The share of maps that are told right; maps of one prompt may depend on each other, so that prompts are what is sampled
    (Student's interval, within 0 and 1); of a single one, Wilson's, as if they did not."""
    share = float(right.double().mean())
    if prompts < 2:
        return share_interval(share, len(right))
    found = t_interval(right.view(prompts, -1).double().mean(dim=1))
    return Effect(share, max(0.0, found.low), min(1.0, found.high))


def _made_rows(marks: MapMarks, made: int, seed: int) -> tuple[Float[Tensor, "map feature"], Int[Tensor, " map"]]:
    """What is known of made maps, and their classes: those of the first half of the prompts come first."""
    generator = torch.Generator().manual_seed(seed)
    half = min(len(marks.keys) // 2, PROMPTS // 2)
    chosen = torch.randperm(len(marks.keys), generator=generator)[: 2 * half]
    features, classes = [], []
    for prompt in chosen.tolist():
        own = marks.of_prompts(slice(prompt, prompt + 1))
        maps, drawn = made_maps(own, count=-(-made // (2 * half)), generator=generator)
        features.append(own.features(maps)[0])
        classes.append(drawn[0])
    return torch.cat(features), torch.cat(classes)


def _counted(right: Int[Tensor, " map"], told: Int[Tensor, " map"]) -> Int[Tensor, "class told"]:
    size = len(CLASSES)
    return (right * size + told).bincount(minlength=size * size).reshape(size, size)


@torch.no_grad()
def _shares(
    model: Model, batch: Any, marks: MapMarks, forest: Any, budget: int, progress: Progress
) -> Float[Tensor, "layer head class"]:
    """How many of each head's maps are told to be of each class."""
    counts = torch.zeros(model.n_layers, model.n_heads, len(CLASSES), dtype=torch.float64)
    parts, what = list(text_batches(model.weights, batch, budget=budget)), "looking at maps"
    ends = [0, *itertools.accumulate(map(len, parts))]

    @torch.no_grad()
    def told(part: int) -> Tensor:
        """How many maps of some prompts are told to be of each class."""
        own = marks.of_prompts(slice(ends[part], ends[part + 1]))
        run = forward(model.weights, parts[part], logits=False)
        found = [own.features(run.pattern(layer).float().cpu()) for layer in range(model.n_layers)]
        features = torch.stack(found, dim=1)
        classes = torch.from_numpy(forest.predict(features.flatten(0, 2).numpy())).reshape(features.shape[:3])
        return torch.nn.functional.one_hot(classes, len(CLASSES)).sum(dim=0)

    for end, found in zip(ends[1:], shards(what, len(parts), told), strict=True):
        counts += found
        progress(what, end, len(batch))
    return counts / len(batch)
