"""Summarise and score (SASC, Singh et al. 2023): what a module or a direction answers to, tested on texts made for it."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import AnswerError, CircuitsError, PromptError, shown
from circuits.lenses.explaining.authors import Author, Text, inserting, text_of
from circuits.lenses.explaining.excerpts import Excerpt
from circuits.lenses.explaining.explaining import excerpt_text
from circuits.lenses.explaining.module_explanations import ModuleExplanation, SascCandidate
from circuits.lenses.explaining.module_values import Values, largest_values, module_values
from circuits.lenses.explaining.ngrams import Word, frequent_ngrams, ids_of, text_words
from circuits.lenses.explaining.roles import RULE, Explainer, explainer_and_author, role_name
from circuits.lenses.explaining.rules import TokenRule
from circuits.models import Model, TokenBatch
from circuits.progress import Progress, silent
from circuits.runs.runner import shards
from circuits.statistics import bootstrap

NGRAMS, TOP, TEXTS = 3000, 30, 20
"""Groups of words that are ranked, those of them that are summarised, and texts with and without what a candidate says."""


def explain_module(
    model: Model,
    module: str,
    tokens: TokenBatch | str | None = None,
    *,
    direction: Float[Tensor, " d_model"] | None = None,
    explainer: str | Explainer = RULE,
    author: str | Author | None = None,
    ngrams: int = NGRAMS,
    top: int = TOP,
    texts: int = TEXTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModuleExplanation:
    """Say what a module answers to: its value on each group of up to three words of a text is ranked, the top ones are
    summarised into candidates, and each candidate is tested on texts made with and without it.

    Score: (mean f(with) - mean f(without)) / sigma of f over all groups of words. Raises GraphError for names that the model
    lacks, PromptError for short texts and numbers that are too small, CircuitsError for a module that does the same everywhere.
    A candidate for which no texts can be written is named and left out; where that is so of all, the reason is raised.

    Args:
        model: the model that is asked.
        module: a neuron (`m3.n7`), a head, an MLP, or a residual stream (`resid3`).
        tokens: prompts or a text (default: what the model writes by itself, and facts of `mini`).
        direction: read how far the module's output lies along this vector (default: its length; of a neuron the activation).
        explainer: who summarises, as for `explain`.
        author: who writes the texts (default: who explains; a rule where that is a function): `rule` puts words that the
            explanation names into pieces of the text; `model:DIR`, `endpoint:URL`, or a function of an explanation and a number
            that gives texts with and texts without.
        ngrams: groups of words that are ranked, the most frequent ones.
        top: those of them that are summarised.
        texts: texts with, and as many without, for each candidate.
        seed: that of all that is drawn.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if min(top, texts) < 2 or ngrams < 2 * top:
        raise PromptError(f"ngrams={ngrams}, top={top}, texts={texts}: expected 2 or more, and ngrams at least twice top")
    author = author if author is not None else explainer if isinstance(explainer, str) else RULE
    values, reads = module_values(model, module, direction)
    report, (explains, writes) = progress or silent, explainer_and_author(explainer, author)
    rows = text_words(model, excerpt_text(model, tokens, seed=seed, progress=progress))
    writes = writes or inserting(model, rows, seed=seed)
    groups = frequent_ngrams(rows, ngrams)
    found, each = largest_values(model, values, [ids_of(group) for group in groups], progress=report)
    sigma = float(found.std())
    if not sigma > 1e-9 * float(found.abs().max()):
        raise CircuitsError(f"{module} does the same on all {len(groups)} groups of words: there is nothing to explain")
    order = found.argsort(descending=True, stable=True).tolist()
    best, others = order[:top], random.Random(seed).sample(order[top:], min(top, len(order) - top))
    seen = _shown(model, groups, each, best, others)
    (said,) = shards("explaining", 1, lambda _: explains(seen, max(max(one.activations) for one in seen)))
    explanations = _candidates(said)
    candidates, untested = list[SascCandidate](), dict[str, str]()

    def tested(place: int) -> dict[str, Any]:
        """A candidate with its score, or why it has none."""
        words = explanations[place]
        try:
            return dataclasses.asdict(_tested(model, values, words, writes(words, texts), sigma=sigma, seed=seed))
        except (AnswerError, PromptError) as error:
            return {"untested": str(error), "answered": isinstance(error, PromptError)}

    report("testing explanations", 0, len(explanations))
    for words, one in zip(explanations, shards("testing explanations", len(explanations), tested), strict=True):
        if "untested" not in one:
            candidates.append(SascCandidate(**one))
        else:
            untested[words] = one["untested"]
            if len(untested) == len(explanations):
                raise (PromptError if one["answered"] else AnswerError)(one["untested"])
        report("testing explanations", len(candidates) + len(untested), len(explanations))
    return ModuleExplanation(
        model=model.name,
        weights_sha256=model.fingerprint,
        module=module,
        reads=reads,
        explainer=role_name(explainer),
        author=role_name(author),
        ngrams=tuple((text_of(model, ids_of(groups[place])), float(found[place])) for place in best),
        mean=float(found.mean()),
        sigma=sigma,
        counted=len(groups),
        candidates=tuple(sorted(candidates, key=lambda one: -one.score)),
        texts=texts,
        seed=seed,
        untested=untested,
    )


def _candidates(said: str) -> list[str]:
    """An explanation, and where it is a rule of several clauses each of these by itself, at level 10; none of one without."""
    try:
        rule = TokenRule.parse(said)
    except PromptError:
        return [said]
    alone = [str(TokenRule((dataclasses.replace(clause, level=10.0),))) for clause in rule.clauses]
    return alone if len(alone) < 2 else [said, *alone]


def _shown(
    model: Model, groups: Sequence[tuple[Word, ...]], each: Sequence[tuple[float, ...]], best: list[int], others: list[int]
) -> list[Excerpt]:
    """Groups of words as an explainer sees excerpts. 0 is what the module does least on, by the mean of the others."""
    floor = sum(min(each[place]) for place in others) / max(len(others), 1)
    found, top = list[Excerpt](), set(best)
    for place in (*best, *others):
        tokens = tuple(model.to_token_strings(ids_of(groups[place])))
        activations = tuple(value - floor for value in each[place])
        found.append(Excerpt("top" if place in top else "random", place, tokens, activations))
    return found


def _tested(
    model: Model, values: Values, words: str, texts: tuple[Sequence[Text], Sequence[Text]], *, sigma: float, seed: int
) -> SascCandidate:
    """A candidate's score on texts with and without. Raises AnswerError where there are none."""
    count = min(map(len, texts))
    if not count:
        raise AnswerError(f"no text was written for {shown(words)}: try another author")
    ids = [[_ids(model, text) for text in side[:count]] for side in texts]
    having, lacking = (largest_values(model, values, side)[0] for side in ids)
    effect = bootstrap((having - lacking) / sigma, seed=seed)
    return SascCandidate(words, effect.effect, effect.low, effect.high, (text_of(model, ids[0][0]), text_of(model, ids[1][0])))


def _ids(model: Model, text: Text) -> list[int]:
    return model.to_tokens(text, prepend_bos=False).ids[0].tolist() if isinstance(text, str) else text
