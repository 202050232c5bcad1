"""Linear probes by place: what a model encodes of a property of words, beside all that the number must be held against."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.random_weights import with_random_weights
from circuits.probes.fitting import Asked, Judged, class_f1, judge_place
from circuits.probes.question import Question
from circuits.probes.reading import Pooling, WordText
from circuits.probes.results import Probes
from circuits.probes.sites import sites_of
from circuits.probes.sizes import to_try, try_others
from circuits.probes.storing import activations
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards
from circuits.tasks.sources.conllu import Sentence

FIRST = "resid0"
"""The embeddings: what is known without any layer."""


def probe(
    model: Model,
    sentences: Sequence[Sentence] | WordText,
    column: str = "upos",
    *,
    sites: str | Sequence[str] = "residual",
    pooling: Pooling = "last",
    words: int | None = None,
    least: int = 20,
    seeds: int = 3,
    random_weights: bool = True,
    hidden: int | Sequence[int] = 256,
    ranks: Sequence[int] = (),
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Probes:
    """How well a property of words is read off each place of a model by a linear probe, and what that must be held against.

    A probe is a multinomial logistic regression on the activations of words, penalised, each direction scaled to deviation 1;
    the penalty is chosen on development sentences. A fifth of the sentences is judged on and seen by no probe. Beside it:
    the embeddings (resid0, always among the places), the same architecture with random weights, the majority by word type, a
    window of word identities; the control task (Hewitt & Liang 2019) and selectivity; codelength (Voita & Titov 2020); and one
    hidden layer at the best place. That a property can be read off a place does not say that the model reads it there:
    `property_use` does.

    Raises PromptError for a property that no word or too few have and for numbers out of range, GraphError for places that the
    model lacks, and what `activations` raises.

    Args:
        model: what is probed.
        sentences: with their words' properties (`circuits.tasks.read_conllu`).
        column: the property: upos, xpos, relation, deprel, depth, head, lemma, feats, or the name of a feature such as Number.
        sites: places by name (resid3, mid3, a3, a3.h1, p3, m3), or all of a family: residual, middle, heads, patterns,
            neurons.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read sentences until there are so many words (default: all).
        least: leave out classes that fewer words have.
        seeds: how many times words are split and control tasks drawn.
        random_weights: whether a model with random weights is probed too, with one seed.
        hidden: units of the hidden layer that is tried at the best place, or several numbers of them; 0 for none.
        ranks: through how many directions linear probes are tried there (Hewitt & Liang 2019 find the less the more selective).
        folder: where activations are kept for the next time (default: nowhere).
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the result so far, when a part is there: all places, random weights, the hidden layer.
    """
    if seeds < 1 or least < 1:
        raise PromptError(f"seeds={seeds}, least={least}: expected at least 1 of each")
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    return answer(
        model,
        Question.of(text, column, seeds=seeds, least=least),
        sites=sites,
        pooling=pooling,
        random_weights=random_weights,
        hidden=hidden,
        ranks=ranks,
        folder=folder,
        budget=budget,
        progress=progress,
        found=found,
    )


def answer(
    model: Model,
    question: Question,
    *,
    sites: str | Sequence[str] = "residual",
    pooling: Pooling = "last",
    random_weights: bool = True,
    hidden: int | Sequence[int] = 256,
    ranks: Sequence[int] = (),
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Probes:
    """`probe`, of a question that has been put already."""
    tried = to_try(hidden, ranks)
    tell, report, text = heard(found), progress or silent, question.text
    named = list(dict.fromkeys([FIRST, *(site.name for site in sites_of(model, sites))]))
    options: dict[str, Any] = {"sites": named, "pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    with activations(model, text, **options) as read:
        judged = judge_places(read.of, named, question.asked, f"probing for {question.labels.name}", report)
        result = _result(model, question, named, pooling, judged)
        tell(result)
        best = named[result.best]
        for other in try_others(read.of, best, question, judged[result.best], tried, report):
            result = dataclasses.replace(result, hidden=(*result.hidden, other))
            tell(result)
    if random_weights:
        with activations(with_random_weights(model), text, **options) as read:
            alone = question.asked.of_first_seed()
            others = judge_places(read.of, named, alone, "probing random weights", report, controls=False, codelength=False)
        shares = [question.error(other.right) for other in others]
        accuracy, errors = (tuple(values) for values in zip(*shares, strict=True))
        result = dataclasses.replace(result, random=accuracy, random_errors=errors)
    return result


def judge_places(
    read: Callable[[str], Tensor],
    names: Sequence[str],
    asked: Asked,
    what: str,
    progress: Progress,
    *,
    controls: bool = True,
    codelength: bool = True,
) -> list[Judged]:
    """Fit and judge the probes of each place, one after the other; each place's activations go when it is done."""
    judged = []
    progress(what, 0, len(names))

    def at_place(place: int) -> dict[str, Any]:
        """What the probes of one place got."""
        return judge_place(read(names[place]), asked, controls=controls, codelength=codelength).as_parts()

    for done, parts in enumerate(shards(what, len(names), at_place), 1):
        judged.append(Judged.of_parts(parts))
        progress(what, done, len(names))
    return judged


def _result(model: Model, question: Question, names: Sequence[str], pooling: str, judged: Sequence[Judged]) -> Probes:
    rows: dict[str, list[float]] = {}
    classes, by_class = len(question.labels.classes), list[Tensor]()

    def note(**values: float) -> None:
        """One more number in each column."""
        for name, value in values.items():
            rows.setdefault(name, []).append(value)

    for one in judged:
        accuracy, error = question.error(one.right)
        seen = torch.stack(list(question.asked.seen)).all(dim=0)
        control, _ = question.error(one.control_right, seen)
        selectivity, selectivity_error = question.error(one.right - one.control_right, seen)
        spread = float(one.right.mean(dim=1).std()) if len(one.right) > 1 else float("nan")
        by_class.append(torch.stack([class_f1(answers, question.gold, classes) for answers in one.answers]).mean(dim=0))
        f1 = float(by_class[-1].nanmean())
        note(accuracy=accuracy, errors=error, spread=spread, macro_f1=f1, control=control, selectivity=selectivity)
        note(selectivity_errors=selectivity_error, bits=one.bits, penalties=one.probe.penalty)
    left_out = {**question.text.left_out, **{f"words {why}": count for why, count in question.labels.left_out.items()}}
    about: dict[str, Any] = {"model": model.name, "weights_sha256": model.fingerprint, "column": question.labels.name}
    about |= {"classes": question.labels.classes, "pooling": pooling, "sites": tuple(names), "seeds": question.seeds}
    about |= {"words": int((question.labels.labels >= 0).sum()), "judged": len(question.gold)}
    about |= {"sentences": len(question.text.aligned), "left_out": left_out, "baselines": question.baselines}
    about |= {name: torch.tensor(values, dtype=torch.float64) for name, values in rows.items()}
    counts = question.gold.bincount(minlength=classes)
    return Probes(**about, class_f1=torch.stack(by_class), class_words=counts)
